// Package compose turns compose files into what a stack consists of: specs of services in the order of their
// dependencies, secrets and configs.
//
// It is not a loader of its own: compose-go reads the files as the Compose Specification says. Nor is it a validation:
// what `service create` says of a flag it says of a key, because each key becomes that flag (package servicespec), and the
// rest is the managers'. It reads files and the environment that it is given, and never the network.
//
//	files -> Load -> project -> NewStack -> services (key by key: taken, warned of, refused), secrets, configs
//	                    |
//	                    +-> `stack config` prints it
//
// Invariants:
//
//	I1  No key of a compose file is dropped in silence: fates says of each whether it is taken, warned of or refused.
//	I2  A key is refused when ignoring it would lose isolation, data or a limit, and warned of otherwise, as Docker does.
//	I3  The same files and environment make the same specs: a second deploy changes nothing.
//	I4  A service comes after those that it depends on.
//	I5  The value of a secret is in no error and no warning.
//
// Concurrency: Load holds a lock, because compose-go warns through a logger of the process.
//
// Errors: faults of the kinds Invalid and NotFound that name the service and the key, or the file.
package compose
