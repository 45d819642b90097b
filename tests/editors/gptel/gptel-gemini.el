;;; gptel-gemini.el --- Stand-in for gptel's Gemini backend  -*- lexical-binding: t -*-

;;; Commentary:

;; gptel comes from an archive of Emacs packages that tests may not reach.  This
;; has the documented arguments of `gptel-make-gemini', and asks as gptel does:
;; curl with the backend's arguments, the key in the address, and a stream that is
;; one array of JSON, of which objects are taken as they come.

;;; Code:

(require 'gptel)
(require 'cl-lib)

(cl-defstruct gptel-stand-in name url curl-args models stream header)

(cl-defun gptel-make-gemini
    (name &key curl-args header key request-params (stream nil)
          (host "generativelanguage.googleapis.com") (protocol "https") models (endpoint "/v1beta/models"))
  "Register a backend NAME; the arguments are those of gptel's own."
  (ignore request-params)
  (let ((backend (make-gptel-stand-in
                  :name name :curl-args curl-args :models models :stream stream :header header
                  :url (lambda (model method)
                         (format "%s://%s%s/%s:%s?key=%s" protocol host endpoint model method (funcall key))))))
    (setf (alist-get name gptel--known-backends nil nil #'equal) backend)))

(defun gptel-stand-in-request (prompt callback)
  "Send PROMPT; CALLBACK gets each text, then t; or (HTTP-STATUS . BODY)."
  (let* ((backend gptel-backend)
         (stream (gptel-stand-in-stream backend))
         (body (json-serialize `(:contents [(:role "user" :parts [(:text ,prompt)])])))
         (buffer (generate-new-buffer " *curl*"))
         (at 1))
    (make-process
     :name "curl" :buffer buffer :connection-type 'pipe
     :command (append (list (if (stringp gptel-use-curl) gptel-use-curl "curl"))
                      '("--disable" "--location" "--silent" "--compressed" "-XPOST" "-y7200" "-Y1" "-D-")
                      (gptel-stand-in-curl-args backend)
                      (list "-HContent-Type: application/json" "-d" body
                            (funcall (gptel-stand-in-url backend) gptel-model
                                     (if stream "streamGenerateContent" "generateContent"))))
     :filter (lambda (_ text)
               (with-current-buffer buffer
                 (goto-char (point-max))
                 (insert text)
                 (when (and stream (string-match-p "\\`HTTP/[0-9.]+ 200" (buffer-string)))
                   (goto-char at)
                   (condition-case nil
                       (while (search-forward "{" nil t)
                         (backward-char 1)
                         (funcall callback (gptel-stand-in--text (json-parse-buffer :object-type 'plist)))
                         (setq at (point)))
                     (error nil)))))
     :sentinel (lambda (&rest _)
                 (with-current-buffer buffer
                   (goto-char (point-min))
                   (let ((status (and (looking-at "HTTP/[0-9.]+ \\([0-9]+\\)") (match-string 1))))
                     (re-search-forward "\r?\n\r?\n" nil t)
                     (cond ((not (equal status "200")) (funcall callback (cons status (buffer-substring (point) (point-max)))))
                           (stream (funcall callback t))
                           (t (funcall callback (gptel-stand-in--text (json-parse-buffer :object-type 'plist)))
                              (funcall callback t)))))))))

(defun gptel-stand-in--text (answer)
  "The text of ANSWER."
  (mapconcat (lambda (part) (or (plist-get part :text) ""))
             (plist-get (plist-get (aref (plist-get answer :candidates) 0) :content) :parts) ""))

(provide 'gptel-gemini)
;;; gptel-gemini.el ends here
