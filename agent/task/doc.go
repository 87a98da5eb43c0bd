// Package task decides and remembers what this node does with the tasks that it was given.
//
// It neither talks to managers nor knows what a container is: it is told what is assigned ([Manager.Assign]), drives an
// [Executor], and says what became of each task (Config.Report).
//
// A task's life on a node, as [Machine] decides it. "stop" is a desired state of SHUTDOWN or REMOVE, or the end of the
// assignment:
//
//	ASSIGNED -> ACCEPTED -> PREPARING -prepared-> READY -desired RUNNING-> STARTING -started-> RUNNING
//	                         |  ^ |                 |                        |  ^ |               |
//	                         |  +-+ unavailable:    |                        |  +-+ unavailable   | the process ended
//	                         |      again, later    |                        |                    |
//	                    other|error                 |stop                    |other error         +- exit code 0 -> COMPLETE
//	                         v                      v                        v                    +- another     -> FAILED
//	                      REJECTED               SHUTDOWN                  FAILED                 +- after stop  -> SHUTDOWN
//
//	RUNNING, but the container ended with the machine:
//	  a manager tells the assignments        -> FAILED, and it decides what follows
//	  nobody does, and the restart policy    -> prepared and started again, RUNNING all the while (lost.go); a manager that comes
//	  would replace the task                    before it runs makes it FAILED, one that comes later finds the same task
//	                                            All errors are tried again meanwhile. What was not known to run yet begins as a new one does.
//	RUNNING, stop: stop signal -> grace period -> SIGKILL -> SHUTDOWN
//	RUNNING, news of secrets, or a failure a while ago: Refresh, if files are to follow them; one at a time, and the end waits for it
//	after the end: Release (all but the log) -> desired REMOVE or not assigned: Remove (the log too) -> not assigned: forgotten
//
// Invariants:
//
//	I6   The state of a task never goes backwards, whatever is reported or assigned.
//	I15  A task that is forgotten leaves nothing behind: Release and Remove are tried until they succeed.
//	T1   A task is started at most once: one that ran before a restart of the daemon is continued or FAILED, not started anew. Only when its
//	     container ended with the machine and [Manager.Alone] said that no manager is in reach, it is started once for that end (ADR 0049).
//	     A machine that loses its power in the milliseconds after a start, before that is on its disk, starts the task anew.
//	T2   The database holds no secrets: only references to them. A task whose secrets aren't here waits.
//	T3   A task's end is in the database before its container is released, so that no exit code is lost.
//
// Concurrency: a Machine belongs to one goroutine. A Manager is safe for concurrent use; Run owns one goroutine per task and
// one per operation, and returns when all have ended. Containers go on running then.
//
// Errors: Open returns [ErrVersion], [ErrDamaged] and [ErrLocked]. An [Executor] says with the kind of its errors ([fault.KindOf]) whether to
// try again: Unavailable is temporary, everything else is final, but for a task that its node starts again by itself: there, all is temporary.
//
// The database is the bbolt file tasks.db (mode 0600). Bucket "meta" has "version" = "1"; bucket "task" has the last assigned
// [api.Task], with the desired state REMOVE once it is assigned no more, bucket "status" the last [api.TaskStatus], both as protobuf under the task's id.
//
// The states are those of Docker Swarm (SwarmKit's design/task_model.md).
package task
