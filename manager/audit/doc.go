// Package audit writes down who did what, and who tried to: it describes requests, gets the descriptions into the audit log, and shows
// the log to those who may read it.
//
// It does not chain entries, which the store does as it applies transactions, and it decides about nobody: that is package authz.
//
//	call --authz--> refused ----------------------------------------+
//	         |                                                      v
//	         +----> interceptor --handler--> Update + rider    queue (per manager, bounded, sums up)
//	                     |  fails: ------------- | ----------------> |
//	                     |  changed nothing      v                   |  RecordAudit, to the leader
//	                     +---- own Update ---> store <---------------+
//	dispatcher: a secret goes to a node ------------> queue ---------+
//
// # What is in an event
//
// The method, who called from where, the manager that took the call, the object that the transaction changed or else the one that the
// request names, and the result. The summary names the fields that changed, never a value. What is marked debug_redact is not even
// looked at, nor are the texts of errors, which may repeat what the caller sent.
//
// # Which calls are in the log
//
// Those of methods that are declared with AUDIT_RULE_CALLS beside (access) in proto/, and all that are refused. What the manager's own
// loops change is not. A secret that goes to a node is there once for each of its versions and each node.
//
// # Invariants
//
//   - I16: what a recorded method changes is committed with its entry, in one transaction. One that only hands something out answers
//     after its entry is committed.
//   - U1: who floods a manager with calls that fail gets maxKeys entries a minute at most; the rest are counted, and the count is in the log.
//   - U2: no value of a field that is marked debug_redact gets into an event.
//
// # Concurrency
//
// A Log is safe for concurrent use. Run is called once; Retain is called by the leader, for as long as it leads. The queue and the set of
// deliveries are cores without clocks or goroutines.
package audit
