;;; gemini-pool.el --- Gemini through the gemini-pool daemon  -*- lexical-binding: t -*-

;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1") (jsonrpc "1.0.14"))
;; Keywords: tools, convenience

;;; Commentary:

;; One daemon owns your ways into Gemini; this asks it over its Unix socket.
;; M-x gemini-pool shows what can be asked; `gemini-pool-generate' is for other
;; packages; `gemini-pool-mode-line-mode' shows the tightest quota.

;;; Code:

(require 'cl-lib)
(require 'jsonrpc)
(require 'subr-x)

(defgroup gemini-pool nil
  "Gemini through the gemini-pool daemon."
  :group 'tools
  :prefix "gemini-pool-")

(defcustom gemini-pool-socket nil
  "The daemon's socket; nil means its usual place."
  :type '(choice (const :tag "The usual place" nil) file))

(defcustom gemini-pool-model "gemini-3-flash-preview"
  "The model that is asked when none is named."
  :type 'string)

(defcustom gemini-pool-connect-seconds 2
  "How long to try to connect: a daemon that is being restarted is back by then."
  :type 'number)

(defcustom gemini-pool-mode-line-seconds 60
  "Seconds between two looks at the quota for the mode line."
  :type 'number)

(define-error 'gemini-pool-error "The gemini-pool daemon refused")

;;;; The wire

(defconst gemini-pool--version "0.1.0")

(defconst gemini-pool--repeatable
  '("initialize" "pool/token" "pool/status" "pool/quota" "pool/explain" "account/list" "daemon/info")
  "Methods that may be sent twice without harm.")

(defvar gemini-pool--connection nil "The connection in use, or nil.")
(defvar gemini-pool--streams (make-hash-table :test #'equal) "What to call with a chunk, by token.")
(defvar gemini-pool--listeners nil "A list of (KINDS . FUNCTION), the newest first.")
(defvar gemini-pool--subscribed nil "Non-nil once a subscription was in force.")
(defvar gemini-pool--serial 0)

(cl-defstruct gemini-pool-call
  "A call under way; `gemini-pool-cancel' ends it."
  connection id done cancelled)

(defun gemini-pool-socket ()
  "Where the daemon listens."
  (or gemini-pool-socket
      (getenv "GEMINI_POOL_SOCKET")
      (if (eq system-type 'darwin)
          (expand-file-name "~/Library/Application Support/gemini-pool/run/pool.sock")
        (if-let ((run (getenv "XDG_RUNTIME_DIR")))
            (expand-file-name "gemini-pool/pool.sock" run)
          (expand-file-name
           "run/pool.sock"
           (or (getenv "GEMINI_POOL_STATE_DIR")
               (expand-file-name "gemini-pool" (or (getenv "XDG_STATE_HOME") "~/.local/state"))))))))

(defun gemini-pool--failure (code message hint &optional retryable)
  "An error of our own: CODE, MESSAGE, HINT, RETRYABLE as a plist."
  (list :code code :message message :hint hint :retryable (or retryable :json-false)))

(defun gemini-pool--told (error)
  "The plist of a JSON-RPC ERROR, with `:code' as the daemon's word."
  (let ((data (plist-get error :data))
        (number (plist-get error :code)))
    (append (list :code (or (plist-get data :code)
                            (pcase number
                              (-32601 "not_found")
                              ((or -32600 -32602 -32700) "bad_request")
                              (-32800 "cancelled")
                              (_ "internal")))
                  :message (plist-get error :message))
            (cl-loop for (key value) on data by #'cddr
                     unless (eq key :code) append (list key value))
            (unless (plist-member data :retryable) '(:retryable :json-false)))))

(defun gemini-pool--notified (connection method params)
  "Take a notification: METHOD with PARAMS from CONNECTION."
  (pcase method
    ('$/progress
     (when-let ((on-chunk (gethash (plist-get params :token) gemini-pool--streams)))
       (funcall on-chunk (plist-get params :value))))
    ('pool/event
     (pcase-dolist (`(,_ . ,on-event) gemini-pool--listeners)
       (funcall on-event params)))
    ('daemon/draining                   ; what runs goes on; the next call connects anew
     (when (and (eq connection gemini-pool--connection)
                (not (eq (plist-get params :kept) t))) ; t: it outlives the daemon
       (setq gemini-pool--connection nil)))))

(defclass gemini-pool--wire (jsonrpc-process-connection) ()
  :documentation "A connection to the daemon.")

(defun gemini-pool--known-members (args)
  "Drop the unknown members of a message from ARGS, (CONNECTION MESSAGE).
Older versions of jsonrpc.el take an unknown member for an error."
  (pcase-let ((`(,connection ,message) args))
    (if (cl-typep connection 'gemini-pool--wire)
        (list connection
              (cl-loop for (key value) on message by #'cddr
                       when (memq key '(:jsonrpc :id :method :params :result :error))
                       append (list key value)))
      args)))

(advice-add 'jsonrpc-connection-receive :filter-args #'gemini-pool--known-members)

(defun gemini-pool--open (path)
  "Open a connection to PATH; nil when nobody listens."
  (condition-case nil
      (let ((process (make-network-process
                      :name "gemini-pool" :family 'local :service path
                      :coding 'utf-8-emacs-unix :noquery t)))
        (apply #'make-instance 'gemini-pool--wire
               :name "gemini-pool" :process process
               :notification-dispatcher #'gemini-pool--notified
               :on-shutdown (lambda (connection)
                              (when (eq connection gemini-pool--connection)
                                (setq gemini-pool--connection nil)))
               ;; No log of what is said; newer versions of jsonrpc.el warn of the older word for that.
               (if (slot-exists-p 'jsonrpc-connection '-events-buffer-config)
                   '(:events-buffer-config (:size 0 :format full))
                 '(:events-buffer-scrollback-size 0))))
    (file-error nil)))

(defun gemini-pool--connect ()
  "The connection, opened when there is none; nil when nobody listens."
  (unless (and gemini-pool--connection (jsonrpc-running-p gemini-pool--connection))
    (let ((until (+ (float-time) gemini-pool-connect-seconds))
          (path (gemini-pool-socket))
          connection)
      (while (and (not (setq connection (gemini-pool--open path)))
                  (< (float-time) until))
        (sleep-for 0.05))
      (setq gemini-pool--connection connection)
      (when connection
        (gemini-pool--send connection "initialize"
                           `(:client (:name "emacs" :version ,gemini-pool--version)) #'ignore)
        (when (and gemini-pool--subscribed gemini-pool--listeners)
          (gemini-pool--send connection "pool/subscribe"
                             `(:events ,(caar gemini-pool--listeners)) #'ignore)))))
  gemini-pool--connection)

(defun gemini-pool--send (connection method params done)
  "Send METHOD with PARAMS over CONNECTION; DONE gets (ERROR RESULT).
Return the id."
  (car (jsonrpc--async-request-1
        connection (intern method) (or params (make-hash-table))
        :timeout nil                    ; the daemon has the deadlines
        :success-fn (lambda (result) (funcall done nil result))
        :error-fn (lambda (error) (funcall done error nil)))))

(defun gemini-pool--lost-p (error)
  "Whether ERROR is jsonrpc.el's word for a connection that ended."
  (and (eql (plist-get error :code) -1) (null (plist-get error :data))))

(defun gemini-pool--here (function)
  "FUNCTION, to be called in the buffer that is current now.
Once that is killed, in one that nobody sees: what it inserts must not end up in
a buffer of somebody else's."
  (let ((buffer (current-buffer)))
    (lambda (&rest args)
      (if (buffer-live-p buffer)
          (with-current-buffer buffer (apply function args))
        (with-temp-buffer (apply function args))))))

;;;###autoload
(defun gemini-pool-call (method params done &optional on-chunk)
  "Call METHOD with PARAMS, a plist.
DONE gets (ERROR RESULT), both plists; ERROR has :code, :message, :hint,
:retryable, :retry_at and :account.  ON-CHUNK gets each chunk of a stream.
Both are called in the buffer that is current now.
Returns a `gemini-pool-call', for `gemini-pool-cancel'."
  (let ((call (make-gemini-pool-call)))
    (gemini-pool--attempt call method params (gemini-pool--here done)
                          (and on-chunk (gemini-pool--here on-chunk)) t)
    call))

(defun gemini-pool--attempt (call method params done on-chunk first)
  "Send CALL: METHOD, PARAMS, DONE and ON-CHUNK; FIRST unless it is repeated."
  (let ((connection (gemini-pool--connect))
        (token (and on-chunk (format "emacs-%d" (cl-incf gemini-pool--serial)))))
    (cl-flet ((finish (error result)
                (unless (gemini-pool-call-done call)
                  (setf (gemini-pool-call-done call) t)
                  (funcall done error result)))
              (again ()
                (run-at-time 0 nil #'gemini-pool--attempt call method params done on-chunk nil)))
      (if (null connection)
          (finish (gemini-pool--failure
                   "not_running" (format "no daemon answers at %s" (gemini-pool-socket))
                   "start it with `systemctl --user start gemini-pool', or with `gemini-pool run'" t)
                  nil)
        (when token
          (setq params (append params (list :token token)))
          (puthash token on-chunk gemini-pool--streams))
        (setf (gemini-pool-call-connection call) connection
              (gemini-pool-call-id call)
              (gemini-pool--send
               connection method params
               (lambda (error result)
                 (when token (remhash token gemini-pool--streams))
                 (cond
                  ((null error) (finish nil result))
                  ((gemini-pool--lost-p error)
                   (if (and first (member method gemini-pool--repeatable))
                       (again)
                     (finish (gemini-pool--failure
                              "connection_lost"
                              (format "the daemon went away in the middle of %s" method)
                              "repeat it if it may be repeated" t)
                             nil)))
                  ((and first (equal (plist-get (plist-get error :data) :code) "shutting_down"))
                   (when (eq connection gemini-pool--connection)
                     (setq gemini-pool--connection nil))
                   (again))
                  (t (finish (gemini-pool--told error) nil))))))))))

(defun gemini-pool-cancel (call)
  "Cancel CALL: its function is told so, with the code \"cancelled\"."
  (unless (or (gemini-pool-call-done call) (gemini-pool-call-cancelled call))
    (setf (gemini-pool-call-cancelled call) t)
    (jsonrpc-notify (gemini-pool-call-connection call) (intern "$/cancelRequest")
                    (list :id (gemini-pool-call-id call)))))

;;;###autoload
(defun gemini-pool-request (method &optional params)
  "Call METHOD with PARAMS and wait for the result.
Signals `gemini-pool-error' with (MESSAGE HINT PLIST)."
  (let* (out
         (call (gemini-pool-call method params (lambda (&rest got) (setq out got)))))
    (unwind-protect
        (while (not out)
          (accept-process-output nil 0.05))
      (unless out (gemini-pool-cancel call)))
    (pcase-let ((`(,error ,result) out))
      (when error
        (signal 'gemini-pool-error (list (plist-get error :message) (plist-get error :hint) error)))
      result)))

(defun gemini-pool-subscribe (kinds on-event &optional ready)
  "Call ON-EVENT with each event of KINDS, a vector of strings.
READY is called with an error or nil when that is in force.  It stays in force
when the daemon is restarted."
  (push (cons kinds on-event) gemini-pool--listeners)
  (gemini-pool-call "pool/subscribe" (list :events kinds)
                    (lambda (error _)
                      (unless error (setq gemini-pool--subscribed t))
                      (when ready (funcall ready error)))))

(defun gemini-pool-disconnect ()
  "End the connection; the next call opens another."
  (setq gemini-pool--listeners nil gemini-pool--subscribed nil)
  (when gemini-pool--connection
    (let ((connection gemini-pool--connection))
      (setq gemini-pool--connection nil)
      (delete-process (jsonrpc--process connection)))))

;;;; For other packages

(defun gemini-pool-text (value)
  "The text of VALUE, an answer or a chunk of one."
  (let* ((candidates (plist-get value :candidates))
         (first (and (> (length candidates) 0) (aref candidates 0))))
    (mapconcat (lambda (part)
                 (if (memq (plist-get part :thought) '(nil :json-false))
                     (or (plist-get part :text) "")
                   ""))
               (plist-get (plist-get first :content) :parts) "")))

;;;###autoload
(cl-defun gemini-pool-generate (prompt &key model request session on-chunk on-done)
  "Ask MODEL for an answer to PROMPT, or to REQUEST (a body of generateContent).
ON-CHUNK gets (TEXT VALUE) as the answer streams; ON-DONE gets (ERROR RESULT).
Requests of one SESSION stay with one account while that is worth it.
Returns a call for `gemini-pool-cancel'."
  (gemini-pool-call
   "pool/generate"
   (append (list :model (or model gemini-pool-model)
                 :request (or request
                              `(:contents [(:role "user" :parts [(:text ,prompt)])])))
           (when session (list :session session))
           (when on-chunk (list :method "streamGenerateContent")))
   (or on-done #'gemini-pool--complain)
   (when on-chunk
     (lambda (value) (funcall on-chunk (gemini-pool-text value) value)))))

(defun gemini-pool--complain (error &rest _)
  "Show ERROR, with its hint."
  (when error
    (message "gemini-pool: %s%s" (plist-get error :message)
             (if-let ((hint (plist-get error :hint))) (concat "\n" hint) ""))))

;;;; For people

(defun gemini-pool--show (name lines)
  "Show LINES in a buffer called after NAME."
  (with-current-buffer (get-buffer-create (format "*gemini-pool %s*" name))
    (let ((inhibit-read-only t))
      (erase-buffer)
      (insert (string-join lines "\n") "\n"))
    (special-mode)
    (goto-char (point-min))
    (display-buffer (current-buffer))))

(defun gemini-pool--percent (fraction)
  "FRACTION of 1 as a column."
  (if (numberp fraction) (format "%3d %%" (round (* 100 fraction))) "   ?"))

(defun gemini-pool--clock (instant)
  "INSTANT, Unix seconds, as a time of day."
  (if (numberp instant) (format-time-string "%H:%M:%S" instant) ""))

(defmacro gemini-pool--or-complain (&rest body)
  "Run BODY; an error of the daemon's becomes a user error with its hint."
  (declare (indent 0) (debug t))
  `(condition-case error
       (progn ,@body)
     (gemini-pool-error
      (user-error "%s%s" (cadr error) (if (caddr error) (concat "\n" (caddr error)) "")))))

(defun gemini-pool--account ()
  "Read the id of an account."
  (gemini-pool--or-complain
    (completing-read "Account: "
                     (mapcar (lambda (each) (plist-get each :id))
                             (plist-get (gemini-pool-request "account/list") :accounts))
                     nil t)))

;;;###autoload
(defun gemini-pool-status ()
  "Show every account and how it is."
  (interactive)
  (gemini-pool--or-complain
    (gemini-pool--show
     "status"
     (or (mapcar (lambda (each)
                   (format "%-20s %-14s %-16s %s%s" (plist-get each :id) (plist-get each :backend)
                           (plist-get each :state)
                           (if-let ((globs (append (plist-get each :pinned) nil)))
                               (format "pinned for %s  " (string-join globs " "))
                             "")
                           (or (plist-get each :reason) "")))
                 (plist-get (gemini-pool-request "pool/status") :accounts))
         '("no accounts yet: gemini-pool account add")))))

;;;###autoload
(defun gemini-pool-quota ()
  "Show what is left, by family, account and model."
  (interactive)
  (gemini-pool--or-complain
    (let ((quota (gemini-pool-request "pool/quota")))
      (gemini-pool--show
       "quota"
       (or (append
            (mapcar (lambda (each)
                      (format "%-28s %s left" (plist-get each :family)
                              (gemini-pool--percent (plist-get each :fraction))))
                    (plist-get quota :families))
            (mapcar (lambda (each)
                      (format "  %-18s %-26s %s left  %s" (plist-get each :account)
                              (plist-get each :model)
                              (gemini-pool--percent (plist-get each :fraction))
                              (gemini-pool--clock (plist-get each :resets_at))))
                    (plist-get quota :accounts)))
           '("nothing is known of any quota yet"))))))

;;;###autoload
(defun gemini-pool-explain (model)
  "Show who would be chosen for MODEL, and why not the others."
  (interactive (list (read-string "Model: " nil nil gemini-pool-model)))
  (gemini-pool--or-complain
    (let ((found (gemini-pool-request "pool/explain" (list :model model))))
      (gemini-pool--show
       "explain"
       (cons (format "%s: %s  %s" model (or (plist-get found :chosen) "nobody")
                     (or (plist-get found :reason) ""))
             (mapcar (lambda (each)
                       (format "  %-20s %-16s %s  %s" (plist-get each :account)
                               (plist-get each :verdict) (or (plist-get each :reason) "")
                               (gemini-pool--clock (plist-get each :returns_at))))
                     (plist-get found :accounts)))))))

(defvar-local gemini-pool--answering nil "The call whose answer this buffer shows.")

;;;###autoload
(defun gemini-pool-ask (prompt)
  "Ask the default model PROMPT; the answer streams into a buffer.
\\<gemini-pool-answer-mode-map>\\[gemini-pool-stop] there stops it."
  (interactive "sAsk Gemini: ")
  (let ((buffer (generate-new-buffer "*gemini-pool answer*")))
    (with-current-buffer buffer
      (gemini-pool-answer-mode)
      (setq gemini-pool--answering
            (gemini-pool-generate
             prompt
             :on-chunk (lambda (text _) (gemini-pool--append buffer text))
             :on-done (lambda (error _)
                        (when error
                          (gemini-pool--append buffer (concat "\n" (plist-get error :message)))
                          (gemini-pool--complain error))))))
    (display-buffer buffer)
    buffer))

(defvar gemini-pool-answer-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-c") #'gemini-pool-stop)
    map)
  "Keys of answers.")

(define-derived-mode gemini-pool-answer-mode text-mode "Gemini"
  "An answer that streams in."
  (add-hook 'kill-buffer-hook #'gemini-pool-stop nil t))

(defun gemini-pool-stop ()
  "Stop the answer of this buffer."
  (interactive)
  (when gemini-pool--answering
    (gemini-pool-cancel gemini-pool--answering)))

(defun gemini-pool--append (buffer text)
  "Put TEXT at the end of BUFFER, if that still lives."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (save-excursion
        (goto-char (point-max))
        (insert text)))))

;;;###autoload
(defun gemini-pool-login (account)
  "Log ACCOUNT in through the browser."
  (interactive (list (gemini-pool--account)))
  (gemini-pool--or-complain
    (let ((flow (gemini-pool-request "account/login" (list :account account))))
      (browse-url (plist-get flow :url))
      (message "Log in at %s" (plist-get flow :url))
      (gemini-pool-call "account/loginFinish" (list :login (plist-get flow :login))
                        (lambda (error finished)
                          (if error (gemini-pool--complain error)
                            (let* ((verdict (plist-get finished :verdict))
                                   (next (or (plist-get verdict :next) "")))
                              (message "gemini-pool: %s is %s%s" (plist-get finished :account)
                                       (plist-get verdict :state)
                                       (if (string-empty-p next) "" (concat "\n" next))))))))))

(defun gemini-pool--do (method account said &optional model)
  "Call METHOD for ACCOUNT and MODEL, then say that it SAID."
  (gemini-pool--or-complain
    (gemini-pool-request method (append (list :account account) (when model (list :model model))))
    (message "gemini-pool: %s %s%s" account said (if model (concat " for " model) ""))))

(defun gemini-pool--models-of-pin ()
  "With a prefix argument, read the glob of models that a pin is for."
  (when current-prefix-arg (list (read-string "Models (a glob): "))))

;;;###autoload
(defun gemini-pool-pin (account &optional model)
  "Use ACCOUNT before all others, in every program, for what it can serve.
With MODEL, a glob (asked for with a prefix argument), only for models that fit."
  (interactive (cons (gemini-pool--account) (gemini-pool--models-of-pin)))
  (gemini-pool--do "account/pin" account "is pinned" model))

;;;###autoload
(defun gemini-pool-unpin (account &optional model)
  "Let the pool choose again instead of ACCOUNT.
With MODEL, only the pin of that glob ends."
  (interactive (cons (gemini-pool--account) (gemini-pool--models-of-pin)))
  (gemini-pool--do "account/unpin" account "is not pinned any more" model))

;;;###autoload
(defun gemini-pool-pause (account)
  "Send nothing new with ACCOUNT."
  (interactive (list (gemini-pool--account)))
  (gemini-pool--do "pool/pause" account "is paused"))

;;;###autoload
(defun gemini-pool-resume (account)
  "Send with ACCOUNT again."
  (interactive (list (gemini-pool--account)))
  (gemini-pool--do "pool/resume" account "goes on"))

;;;###autoload
(defun gemini-pool (verb)
  "Do VERB: one of this package's commands, by its short name."
  (interactive
   (list (completing-read
          "gemini-pool: " '("status" "quota" "explain" "ask" "login" "pin" "unpin" "pause" "resume") nil t)))
  (call-interactively (intern (concat "gemini-pool-" verb))))

;;;; The mode line

(defvar gemini-pool--mode-line "" "What the mode line says.")
(put 'gemini-pool--mode-line 'risky-local-variable t)
(defvar gemini-pool--timer nil)

(defun gemini-pool--look ()
  "Look at the quota for the mode line, without waiting for a daemon."
  (let ((gemini-pool-connect-seconds 0))
    (gemini-pool-call
     "pool/quota" nil
     (lambda (error quota)
       (setq gemini-pool--mode-line
             (if error (if (equal (plist-get error :code) "not_running") " gemini:off" " gemini:?")
               (let ((least (car (sort (seq-filter (lambda (each) (numberp (plist-get each :fraction)))
                                                   (append (plist-get quota :accounts) nil))
                                       (lambda (a b) (< (plist-get a :fraction) (plist-get b :fraction)))))))
                 (if least
                     (format " %s:%s" (plist-get least :model)
                             (string-trim (gemini-pool--percent (plist-get least :fraction))))
                   " gemini:ok"))))
       (force-mode-line-update t)))))

;;;###autoload
(define-minor-mode gemini-pool-mode-line-mode
  "Show the tightest quota in the mode line."
  :global t
  (when gemini-pool--timer
    (cancel-timer gemini-pool--timer)
    (setq gemini-pool--timer nil))
  (setq global-mode-string (delq 'gemini-pool--mode-line (or global-mode-string '(""))))
  (when gemini-pool-mode-line-mode
    (setq global-mode-string (append global-mode-string '(gemini-pool--mode-line))
          gemini-pool--timer (run-at-time 0 gemini-pool-mode-line-seconds #'gemini-pool--look))))

(provide 'gemini-pool)
;;; gemini-pool.el ends here
