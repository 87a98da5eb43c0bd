package backup

import "errors"

var (
	// ErrNotBackup is returned when a file does not begin like a backup.
	ErrNotBackup = errors.New("this is not a skep backup")
	// ErrVersion is returned when a backup has a format that this version does not read.
	ErrVersion = errors.New("the backup has a format that this skep does not read: use the version that wrote it, or a newer one")
	// ErrDamaged is returned when a part of a backup is missing, or is not what was written.
	ErrDamaged = errors.New("damaged or tampered with: use another backup")
	// ErrWrongSecret is returned when a backup does not open. A changed beginning of the file looks the same.
	ErrWrongSecret = errors.New("the backup does not open: the key or passphrase is another one's, or the beginning of the file was changed")
	// ErrNeedsKey is returned when there is no backup key to open a backup with.
	ErrNeedsKey = errors.New("the backup is sealed by the backup key of its swarm: give that with --key-file")
	// ErrNeedsPassphrase is returned when there is no passphrase to open a backup with.
	ErrNeedsPassphrase = errors.New("the backup is sealed by a passphrase: give it with --passphrase-file")
	// ErrBehind is returned when a manager can't find out whether it knows what the others acknowledged.
	ErrBehind = errors.New("this manager can't tell whether it has all that the others acknowledged: more than half of the managers must be online; " +
		"when they are gone for ever, run `skep swarm init --force-new-cluster` first")
	// ErrNoKey is returned when a cluster has no backup key yet.
	ErrNoKey = errors.New("the swarm has no backup key yet, because its leader is of an older version or only starts: " +
		"try again in a moment, or seal the backup with --passphrase-file")
	// ErrPassphrase is returned when a passphrase is too weak to seal a backup.
	ErrPassphrase = errors.New("weak passphrase")
)
