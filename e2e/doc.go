// Package e2e tests the built programs as users use them: several machines in namespaces, real containers, and scripts
// in testdata/script that drive the command line. It has no code of its own; e2e/lab makes the machines.
//
// The scripts are testscript files. Beside its own verbs they have:
//
//	machine NAME [FLAG…]           a new machine with a running daemon
//	swarm NAME…                    machines in one swarm: the first two capitals of a name say its role (m1: manager, w1: worker)
//	skep NAME ARG…                 the command line on that machine
//	from NAME ARG…                 the same as a person there, whom SKEP_CONFIG, SKEP_HOST and the like tell which daemon to speak to
//	begin NAME ARG…                skep, while the script goes on; begin-from is from
//	heard NAME REGEXP              waits until what was begun prints that
//	end NAME…                      waits for what was begun there, and prints NAME succeeded or NAME failed
//	await NAME REGEXP ARG…         the same, again and again until what it prints matches, a minute at most; with !, until it fails with such an error
//	capture VARIABLE NAME ARG…     what it prints becomes a variable
//	leader VARIABLE NAME           the name of the leader's machine, as that machine sees it
//	daemon kill|stop|start NAME    the daemon alone: containers go on; start may add flags
//	power off|on NAME              the whole machine
//	cut NAME, mend NAME            its cable
//	fetch NAME URL                 an HTTP GET from inside the machine
//	closed NAME HOST:PORT          nothing listens there, as the machine sees it
//	typed NAME INPUT ARG…          the command line with a line of input
//	damage NAME                    flips a bit of the last log entry of a manager whose daemon is stopped, and prints its index
//	sealed NAME UNLOCK-KEY         waits until that key opens the manager's store
//	disk NAME TEXT                 waits for a file on the machine's disk that holds TEXT; negated, there is none at the moment
package e2e
