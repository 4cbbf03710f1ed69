#!lua flags=allow-oom
-- child: submit, for calls and dispatches: a job that runs goes on to its end when memory is short, too.
--@body submit
