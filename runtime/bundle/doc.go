// Package bundle runs OCI bundles for container engines: it is what the command line create, start, state, kill, delete
// does, one process for each command, without a supervisor.
//
// It has no policy of its own: an engine decides on the isolation that it wants, in the bundle's config.json.
//
//	           create                 start                    (program ends)            delete
//	(nothing) ───────> created ─────────────────> running ─────────────────────> stopped ───────> (nothing)
//	                      └──────── kill ──────────────────────────────────────────^
//
// The container's process is a child of whoever called create, which is to collect its exit status. Between create and
// start it waits for a connection to a unix socket in the container's directory, so create may return:
//
//	ROOT/ID/state.json   what create made (record), written once
//	ROOT/ID/config.json  the configuration as it was then
//	ROOT/ID/start        the socket; gone from start on
//
// Invariants:
//
//	I1  A failed Create leaves nothing behind: no process, control group or directory.
//	I2  A signal never reaches another process that got the number of one of ours: a process is known by its start time.
//	I3  The state is what the kernel says now; nothing that can become stale is written down.
//
// A Runtime is safe for concurrent use; so are several processes that work below the same root, as engines need it.
//
// Errors to branch on: ErrExists, ErrNotFound, ErrNotRunning, ErrState. Their texts are those that engines look for.
//
// Source: OCI runtime-spec 1.3, runtime.md and config.md.
package bundle
