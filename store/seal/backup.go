package seal

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"strings"
)

// The kinds of envelopes in a backup file.
const (
	KindBackupKey Kind = 16 // the data key of a backup
	KindBackup    Kind = 17 // a part of a backup
)

// backupPrefix names the format of backup keys, which is otherwise that of unlock keys.
const backupPrefix = "SKPBAK-1-"

// ErrBackupKey is returned when a text is not a backup key: mistyped, cut short, or something else.
var ErrBackupKey = errors.New("this is not a backup key: it must have the form " + backupPrefix + "… and be complete")

// BackupKey returns the form in which a person keeps a key that seals backups: "SKPBAK-1-" and 58 characters. It is as secret as
// the key.
func (k Key) BackupKey() string { return k.text(backupPrefix) }

// ParseBackupKey reads what BackupKey returned; spaces around it are ignored. It returns ErrBackupKey for anything else.
func ParseBackupKey(text string) (Key, error) { return parseKey(backupPrefix, text, ErrBackupKey) }

// Seal appends the envelope of content to dst, sealed by a key that is in no ring.
func (k Key) Seal(dst []byte, p Place, content []byte) ([]byte, error) {
	return sealWith(dst, k, kekID, p, content)
}

// Open returns the content of an envelope that Seal made for the place, or ErrOpen.
func (k Key) Open(p Place, envelope []byte) ([]byte, error) { return openWith(k, p, envelope) }

// text returns the form in which a person keeps k: base32 of the key and the first bytes of its SHA-256, against typing errors.
func (k Key) text(prefix string) string {
	sum := sha256.Sum256(k.bytes[:])
	return prefix + keyEncoding().EncodeToString(append(k.bytes[:], sum[:keyChecksum]...))
}

// parseKey reads what text returned, or returns invalid.
func parseKey(prefix, text string, invalid error) (Key, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return Key{}, invalid
	}
	b, err := keyEncoding().DecodeString(encoded)
	if err != nil || len(b) != KeySize+keyChecksum {
		return Key{}, invalid
	}
	k := Key{[KeySize]byte(b)}
	// Also refuses other spellings of the same bytes, and a wrong checksum.
	if subtle.ConstantTimeCompare([]byte(k.text(prefix)), []byte(text)) != 1 {
		return Key{}, invalid
	}
	return k, nil
}

func keyEncoding() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }
