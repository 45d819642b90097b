;;; gemini-pool-gptel.el --- A gptel backend through the gemini-pool daemon  -*- lexical-binding: t -*-

;;; Commentary:

;; gptel asks the daemon's gateway over its Unix socket: no port, no key, every
;; account.  It needs gptel 0.9 or newer, and curl, which gptel uses anyway:
;;
;;   (setq gptel-backend (gemini-pool-gptel)
;;         gptel-model 'gemini-3.5-flash)

;;; Code:

(require 'gemini-pool)

(declare-function gptel-make-gemini "ext:gptel-gemini")
(defvar gptel-use-curl)

(defun gemini-pool-gptel--gateway ()
  "The Unix socket of the gateway: as the daemon told, else the usual place."
  (let ((gemini-pool-connect-seconds 0)
        (usual (expand-file-name "gateway.sock" (file-name-directory (gemini-pool-socket)))))
    (condition-case nil
        (let ((told (plist-get (gemini-pool-request "daemon/info") :gateway_socket)))
          (if (member told '(nil "")) usual told))
      (gemini-pool-error usual))))

(defun gemini-pool-gptel--curl ()
  "The curl of gptel."
  (if (stringp gptel-use-curl) gptel-use-curl "curl"))

(defun gemini-pool-gptel-models ()
  "The models that the pool's accounts have and that chat, as gptel wants them."
  (with-temp-buffer
    (let ((left (call-process (gemini-pool-gptel--curl) nil t nil "--disable" "--silent" "--show-error"
                              "--max-time" "30" "--unix-socket" (gemini-pool-gptel--gateway)
                              "http://localhost/v1beta/models?pageSize=1000")))
      (goto-char (point-min))
      (unless (eql left 0)
        (user-error "The gateway does not answer: %s" (string-trim (buffer-string))))
      (let ((found (json-parse-buffer :object-type 'plist :null-object nil)))
        (when-let ((error (plist-get found :error)))
          (user-error "%s" (plist-get error :message)))
        (cl-loop for model across (plist-get found :models)
                 for methods = (or (plist-get model :supportedGenerationMethods) ["generateContent"])
                 when (cl-find "generateContent" methods :test #'equal)
                 collect (list (intern (string-remove-prefix "models/" (plist-get model :name)))
                               :description (or (plist-get model :displayName) "")
                               :capabilities '(tool-use json media)
                               :mime-types '("image/png" "image/jpeg" "image/webp" "application/pdf" "text/plain")
                               :context-window (/ (or (plist-get model :inputTokenLimit) 1048576) 1000)))))))

;;;###autoload
(defun gemini-pool-gptel (&optional name &rest options)
  "Register the pool as a backend of gptel called NAME, and return it.
OPTIONS go to `gptel-make-gemini' and win over ours, such as `:models', which is
else asked of the daemon now."
  (unless (require 'gptel-gemini nil t)
    (user-error "Gptel is not installed"))
  (require 'gptel)
  (unless gptel-use-curl
    (user-error "Gptel reaches a Unix socket by curl alone: set `gptel-use-curl'"))
  (apply #'gptel-make-gemini (or name "gemini-pool")
         (append options
                 (unless (plist-member options :models)
                   (list :models (gemini-pool-gptel-models)))
                 (list :protocol "http"
                       :host "localhost"
                       :stream t
                       ;; gptel wants one; on the Unix socket nobody looks at it.
                       :key (lambda () "gemini-pool")
                       :curl-args (list "--unix-socket" (gemini-pool-gptel--gateway))))))

(provide 'gemini-pool-gptel)
;;; gemini-pool-gptel.el ends here
