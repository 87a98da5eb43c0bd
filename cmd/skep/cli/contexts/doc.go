// Package contexts keeps what a person reaches daemons by: under a name, an address and what proves who asks.
//
// It is a directory, for one person, on one machine; it knows neither commands nor connections. The word is Docker's.
//
//	DIR/current              the name of the context in use, if one is
//	DIR/contexts/NAME/       0700
//	    meta.json            {"Name", "Description", "Host"}
//	    ca.pem cert.pem key.pem    for a host over TCP; 0600
//
// An exported context is a tar of the same files, without directories.
//
// Invariants:
//
//	X1  A private key is in no file that others may read, at no moment, and in no text.
//	X2  A context is there with all its files or not at all.
//	X3  Nothing of what an archive says decides where a file is written.
//
// Concurrency: a Store may be used from several processes; of two that change one context, one wins.
//
// Errors: faults of the kinds NotFound, AlreadyExists, Invalid and Precondition, with the next step.
package contexts
