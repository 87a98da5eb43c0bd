// Package cli is the command line of skep: Docker's verbs, flags, columns and messages, over the daemon's unix socket or TCP.
//
// It holds no decision that a second front end would need: it reads what was typed, calls the services Control and Daemon,
// and prints. It imports neither managers nor agents. The daemon itself is a command that the program's main adds.
//
//	arguments -> cobra -> a command -> client -> daemon
//	                        |            (flagvalue, servicespec read; view, output, progress write)
//	                        v
//	                  nil or a fault -> text on the error stream, exit code
//
// Invariants:
//
//	I1  A secret's value, a token that was not asked for, and an unlock key that was typed are never printed.
//	I2  What a program reads goes to the output stream, what a person reads about it to the error stream.
//	I3  An exit code belongs to one kind of fault; exitCodes is the one table.
//	I4  A flag that Docker has keeps Docker's shorthand, type and default.
//
// Concurrency: Main may be called once at a time for each set of streams.
package cli
