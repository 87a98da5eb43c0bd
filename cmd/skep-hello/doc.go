// Command skep-hello is the program in the built-in image skep.local/hello: it says how
// it is isolated, and misbehaves on request.
//
// It prints one "key: value" a line (see [report]), serves the same text over
// HTTP, logs a line now and then, and ends with status 0 on SIGTERM. What it
// cannot see it calls "not visible" rather than guess. It never prints a secret,
// only its sha256.
//
//	start --> report --> misbehave? --> serve, tick --> SIGTERM: exit 0
//	                                        |
//	                                        +--> --after passed: exit --exit
//
// It is a test object: --fill-memory and --forks do real, bounded damage inside
// the limits of their container.
//
// Everything is read from /proc, /sys and /run/secrets below a root directory,
// so that tests can give it another one. See proc(5), cgroups(7).
package main
