/* Every route: method, path, handler, the scope that a token needs (auth.h), a sentence. `{…}`
 * stands for one segment, which the handler finds in request->arg. HEAD is answered where there is
 * GET. The order does not matter: no two patterns of one method match the same path. */
#pragma once

#define ROUTES(X)                                                                                  \
    X(POST, "/api/v1/jobs", jobs_submit, SUBMIT, "Submits a job")                                  \
    X(GET, "/api/v1/jobs", jobs_list, READ, "Recent jobs, newest first")                           \
    X(GET, "/api/v1/jobs/{id}", jobs_get, READ, "A job")                                           \
    X(GET, "/api/v1/jobs/{id}/result", jobs_result, READ, "The result of a completed job, alone")  \
    X(GET, "/api/v1/jobs/{id}/events", events_get, READ,                                           \
      "The events of a job, as a list or a stream")                                                \
    X(POST, "/api/v1/jobs/{id}/cancel", jobs_cancel, SUBMIT, "Cancels a job")                      \
    X(POST, "/api/v1/jobs/{id}/retry", jobs_retry, SUBMIT, "Runs an ended job again")              \
    X(DELETE, "/api/v1/jobs/{id}", jobs_erase, SUBMIT, "Erases a job")                             \
    X(GET, "/api/v1/dead", dead_get, ADMIN, "Dead letters, newest first")                          \
    X(POST, "/api/v1/dead/retry", dead_retry, ADMIN, "Runs dead letters again")                    \
    X(POST, "/api/v1/dead/discard", dead_drop, ADMIN, "Discards dead letters")                     \
    X(GET, "/api/v1/pipelines", pipelines_list, READ, "All pipelines")                             \
    X(GET, "/api/v1/pipelines/{name}", pipelines_get, READ, "A pipeline")                          \
    X(POST, "/api/v1/pipelines/{name}/pause", pipelines_pause, ADMIN, "Pauses a pipeline")         \
    X(POST, "/api/v1/pipelines/{name}/resume", pipelines_resume, ADMIN, "Resumes a pipeline")      \
    X(POST, "/api/tasks", tasks_submit, SUBMIT, "Simple task API: submits prompts")                \
    X(GET, "/api/tasks", tasks_list, READ, "Simple task API: several tasks")                       \
    X(GET, "/api/tasks/{id}", tasks_get, READ, "Simple task API: one task")                        \
    X(GET, "/healthz", health_live, NONE, "The process answers")                                   \
    X(GET, "/readyz", health_ready, NONE, "The process can do its work")                           \
    X(GET, "/version", health_version, NONE, "Name and version")
