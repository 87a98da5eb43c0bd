// Package supervisor is the parent of every container of a node: it creates, starts, watches, kills and forgets them,
// and remembers how they ended.
//
// It is small and stays up while everything else restarts: clients come and go, and containers run on. It decides
// nothing that the agent should decide: it restarts nothing, pulls nothing and configures no network.
//
// The life of a container (machine.go decides, container.go does):
//
//	            Start                exec done
//	created ────────────> starting ────────────> running
//	   │                     │ exec failed          │
//	   │ process ends        v                      │ process ends
//	   │                  failing                   │
//	   │                     │ process ends         │
//	   └─────────────────────┴──────────┬───────────┘
//	                                    v
//	                                 exited ──Delete──> (gone)
//
// Files, below the root directory:
//
//	lock                       held while a supervisor uses the directory
//	overlay/                   for mounting (package overlay)
//	journal                    the last record of each container, JSON (package journal)
//	containers/ID/exec.json    what later processes of the container are given, JSON, version 1
//	containers/ID/stdout, stderr  named pipes, so that output survives a restart of the supervisor
//	containers/ID/stdout.rest, stderr.rest  what came of a line whose end has not (rest.go)
//
// A container with a terminal (process.terminal) has no pipes: its output is what the master shows, as one stream. The
// master is with the supervisor and the keeper, and is handed over in an upgrade. Attach gives clients the master for typing, and
// copies of the output (attach.go).
//
// Invariants:
//
//	I1  An exit is on the disk before anybody is told of it, and stays there until Delete. A disk that refuses does not
//	    keep an exit from being told; the log says so. Exits that come at the same time share an fdatasync.
//	I2  Statuses never go backwards, and each change is announced once, in order, to every subscriber.
//	I3  Data of secret files is in the containers' memory only: the supervisor overwrites its copy when Create ends.
//	I4  The end of a client, or of the supervisor, ends no container but those not started yet.
//	I5  Only root may talk to the supervisor.
//	I6  A failed Create leaves nothing behind, and neither does one whose client is gone before it could be told.
//	I7  What a new supervisor can't learn about the end of a container it says, and doesn't guess.
//	I8  A process of an exec has at most the rights of the container's first one, in its namespaces and control group;
//	    it ends with its client, unless that let it go, and with the container.
//	I9  Files are copied by a process that runs the supervisor's own program, in the container's user and mount namespaces:
//	    no path of the container leads it out, and nothing in the container can see it. It ends with its client, and with
//	    the container.
//	I10 From before its program runs until its end is in the journal, a container is held by the keeper (package keeper), if
//	    there is one, and its process is not reaped: whenever the supervisor is killed, the next one learns how it ended.
//
//	I11 Who opens a file in memory that is rewritten has the old content or the new one, as a whole. The supervisor writes only
//	    where a mount has the name that it gave its own file system, and follows no link there: what a container does
//	    with its mounts and directories can keep a file from being rewritten, and no more.
//
// A supervisor that is asked to (Upgrade) runs another program in its own process: the socket and the containers that
// wait for Start are handed over (handover.go), and all are still its children.
//
// After a restart, containers are found by their journal and taken over if the process with the recorded number
// started when the record says. How they end the keeper tells, which has inherited them. Without it, exit codes are known on
// kernels from 6.15 on, and on all kernels when the supervisor replaced itself by execve and is still their parent.
//
// Concurrency: lock order is container.mu before Supervisor.mu. No lock is held across system calls that wait for a
// disk or a process, except container.mu during a write of its own journal record.
package supervisor
