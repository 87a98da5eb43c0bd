// Package authztest sweeps servers: every RPC that is registered, called by every kind of identity, against the rule in proto/.
//
// A method is never run. Behind the interceptors under test stands one that answers that the call got through, so a
// sweep of the whole daemon is quick, harmless, and can't mistake a handler's refusal for the interceptor's.
package authztest
