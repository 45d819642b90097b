;;; gptel.el --- Stand-in for gptel's variables  -*- lexical-binding: t -*-

;;; Code:

(defvar gptel-use-curl t)
(defvar gptel-backend nil)
(defvar gptel-model nil)
(defvar gptel--known-backends nil)

(provide 'gptel)
;;; gptel.el ends here
