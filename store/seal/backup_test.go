package seal

import (
	"bytes"
	"errors"
	"testing"
)

func TestBackupKey_IsNoUnlockKey(t *testing.T) {
	k := NewKey()
	if got, err := ParseBackupKey(k.BackupKey() + "\n"); err != nil || !got.Equal(k) {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := ParseBackupKey(k.UnlockKey()); !errors.Is(err, ErrBackupKey) {
		t.Errorf("an unlock key as a backup key: got %v", err)
	}
	if _, err := ParseUnlockKey(k.BackupKey()); !errors.Is(err, ErrUnlockKey) {
		t.Errorf("a backup key as an unlock key: got %v", err)
	}
}

func TestKeySeal_OpensOnlyWhereItBelongs(t *testing.T) {
	k, place := NewKey(), Place{Kind: KindBackup, Cluster: "c", Index: 7, Part: 1}
	envelope, err := k.Seal([]byte("head"), place, []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	envelope = bytes.TrimPrefix(envelope, []byte("head"))
	if got, err := k.Open(place, envelope); err != nil || string(got) != "content" {
		t.Fatalf("got %q, %v", got, err)
	}
	for what, elsewhere := range map[string]Place{
		"kind": {Kind: KindSnapshot, Cluster: "c", Index: 7, Part: 1}, "cluster": {Kind: KindBackup, Cluster: "d", Index: 7, Part: 1},
		"index": {Kind: KindBackup, Cluster: "c", Index: 8, Part: 1}, "part": {Kind: KindBackup, Cluster: "c", Index: 7, Part: 2},
	} {
		if _, err := k.Open(elsewhere, envelope); !errors.Is(err, ErrOpen) {
			t.Errorf("another %s: got %v", what, err)
		}
	}
	if _, err := NewKey().Open(place, envelope); !errors.Is(err, ErrOpen) {
		t.Errorf("another key: got %v", err)
	}
}
