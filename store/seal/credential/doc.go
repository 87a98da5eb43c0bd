// Package credential keeps a key-encryption key as a credential of systemd: a file that only this machine's TPM2, or systemd's key
// of this host, opens; or one that the service manager opened for the daemon (LoadCredentialEncrypted=).
//
// It knows neither TPMs nor formats: it runs systemd-creds, which the distribution keeps up to date, and gives it the key through
// pipes only, never on a command line, in the environment or in a file in clear.
//
// A TPM2 credential is bound to the TPM, not to what booted (no PCR of it): a change of the firmware would otherwise shut every manager
// out of its store at its next restart. Who wants PCRs makes a credential with them and gives it to the unit; see ADR 13.
//
// # Concurrency and errors
//
// All functions are safe for concurrent use, wait at most 30 s for systemd-creds, and end early with their context. Errors match
// ErrCredential, and say in systemd-creds's words why.
package credential
