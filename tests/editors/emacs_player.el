;;; emacs_player.el --- Replay a transcript with the package's own client  -*- lexical-binding: t -*-

;;; Code:

(require 'gemini-pool)

(defvar play-script (with-temp-buffer
                      (insert-file-contents (getenv "PLAY"))
                      (json-parse-buffer :object-type 'plist :null-object nil :false-object :json-false)))
(defvar play-events nil)

(defun play-fill (pattern)
  "PATTERN with names put in."
  (cond
   ((and (stringp pattern) (string-prefix-p "$" pattern))
    (let ((key (intern (concat ":" (substring pattern 1)))))
      (if (plist-member (plist-get play-script :values) key)
          (plist-get (plist-get play-script :values) key)
        pattern)))
   ((vectorp pattern) (vconcat (mapcar #'play-fill pattern)))
   ((consp pattern) (cl-loop for (key value) on pattern by #'cddr
                             append (list key (play-fill value))))
   (t pattern)))

(defun play-same (pattern value at)
  "Fail unless VALUE has all of PATTERN; AT says where."
  (let ((wanted (play-fill pattern)))
    (cond
     ((vectorp wanted)
      (unless (and (vectorp value) (= (length wanted) (length value)))
        (error "%s: %S instead of %S" at value wanted))
      (dotimes (n (length wanted))
        (play-same (aref wanted n) (aref value n) (format "%s[%d]" at n))))
     ((consp wanted)
      (cl-loop for (key each) on wanted by #'cddr
               do (play-same each (plist-get value key) (format "%s%s" at key))))
     ((numberp wanted)
      (unless (and (numberp value) (= wanted value)) (error "%s: %S instead of %S" at value wanted)))
     ((not (equal wanted value)) (error "%s: %S instead of %S" at value wanted)))))

(defun play-wait (check what)
  "Wait until CHECK gives something; WHAT is missing otherwise."
  (let ((until (+ (float-time) 15)))
    (while (and (not (funcall check)) (< (float-time) until))
      (accept-process-output nil 0.01)
      (sleep-for 0.001))
    (unless (funcall check) (error "%s" what))))

(defun play-judge (action error result)
  "Compare what ACTION gave, ERROR or RESULT, with what stands there."
  (if-let ((wanted (plist-get action :error)))
      (cl-loop for (key each) on wanted by #'cddr
               do (if (eq key :hint)
                      (unless (plist-get error :hint) (error "No hint"))
                    (play-same each (plist-get error key) (format "error%s" key))))
    (when error (error "%S" error))
    (play-same (plist-get action :result) result "result")))

(defun play-begin (action)
  "Start ACTION; return a function that waits for its end."
  (let* (out
         (ended (lambda (error &optional result) (setq out (list error result))))
         (finish (lambda ()
                   (play-wait (lambda () out) (format "no answer to %S" action))
                   (apply #'play-judge action out))))
    (cond
     ((plist-get action :together)
      (let ((all (mapcar #'play-begin (plist-get action :together))))
        (lambda () (mapc #'funcall all))))
     ((plist-get action :subscribe)
      (gemini-pool-subscribe (plist-get action :subscribe)
                             (lambda (event) (setq play-events (append play-events (list event))))
                             ended)
      finish)
     ((plist-get action :event)
      (lambda ()
        (play-wait (lambda () play-events) "no event")
        (play-same (plist-get action :event) (pop play-events) "event")))
     ((plist-get action :stream)
      (let* (chunks
             (call (gemini-pool-call
                    "pool/generate"
                    (append (play-fill (plist-get action :stream)) '(:method "streamGenerateContent"))
                    ended
                    (lambda (value) (setq chunks (append chunks (list value))))))
             (wanted (append (plist-get action :chunks) nil)))
        (lambda ()
          (play-wait (lambda () (>= (length chunks) (length wanted))) "chunks are missing")
          (if (eq t (plist-get action :cancel))
              (progn
                (gemini-pool-cancel call)
                (play-wait (lambda () out) "not cancelled")
                (play-same "cancelled" (plist-get (car out) :code) "code"))
            (funcall finish))
          (unless (= (length chunks) (length wanted)) (error "Too many chunks"))
          (cl-mapc (lambda (pattern value) (play-same pattern value "chunk")) wanted chunks))))
     (t
      (gemini-pool-call (plist-get action :call) (play-fill (plist-get action :params)) ended)
      finish))))

(when (string-match-p "absent" (getenv "PLAY"))
  (setq gemini-pool-connect-seconds 0.1))
(mapc (lambda (action) (funcall (play-begin action))) (plist-get play-script :client))
(gemini-pool-disconnect)
;;; emacs_player.el ends here
