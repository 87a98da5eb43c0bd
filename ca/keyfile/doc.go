// Package keyfile keeps a node's credentials on disk.
//
// It makes no keys and judges no certificates; whether what it loads fits together, ca.NewCredentials says.
//
// # Files
//
// All in one directory of mode 0700, each PEM of mode 0600:
//
//	swarm-root-ca.crt  the trusted roots
//	swarm-node.crt     the node's certificate, then those between it and a root
//	swarm-node.key     the private key as PRIVATE KEY (PKCS #8), or as SKEP SEALED PRIVATE KEY, which a Sealer made of that
//
// # Replacing a key and its certificate
//
// Two files can't be replaced at once, so for a moment the key file has both keys, and the certificate decides:
//
//	key: old        key: new, old       key: new, old       key: new
//	crt: old  --->  crt: old      --->  crt: new      --->  crt: new
//	         write key          write crt            write key
//
// The roots are written first; during a rotation the new bundle has the old root too. A crash between any two steps leaves
// a directory that loads, with the old credentials or with the new.
//
// # Invariants
//
//   - K1: each file is replaced whole (internal/atomicfile), so that Load after a crash finds credentials of before or after.
//   - K2: what Load returns is consistent: the key signs for the certificate, which chains to the roots.
//   - K3: with a Sealer no byte of the key is written unsealed, not to a temporary file either.
//
// # Concurrency
//
// One Dir at a time for a directory, used by one goroutine at a time.
//
// # Errors
//
// ErrNone, ErrLocked, ErrCorrupt.
package keyfile
