package backup_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/store/object"
)

// FuzzReader reads anything as a backup: no panic, and nothing is returned but what was written with the key (B3).
func FuzzReader(f *testing.F) {
	whole, secret := golden(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("SKPBAK1\n\x00\x00\x00\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, state, err := read(bytes.NewReader(b), secret)
		if err == nil && !bytes.Equal(b, whole) {
			t.Errorf("%d bytes that nobody wrote were taken for a backup", len(b))
		}
		if err != nil && state != nil {
			t.Error("a state beside an error")
		}
	})
}

// FuzzCheck checks any state: no panic, and one that it finds nothing wrong with can go on.
func FuzzCheck(f *testing.F) {
	whole, secret := golden(f)
	_, state, err := read(bytes.NewReader(whole), secret)
	if err != nil {
		f.Fatal(err)
	}
	seed, err := proto.Marshal(state)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		state := new(api.StoreSnapshot)
		if proto.Unmarshal(b, state) != nil {
			return
		}
		header, _, err := read(bytes.NewReader(write(t, state, secret)), secret)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if len(backup.Check(header, state)) > 0 {
			return
		}
		err = backup.Succeed(state, backup.Succession{Header: header, Node: &api.Node{Id: object.NewID()}, UnlockKey: "key"})
		if err != nil {
			t.Error(err)
		}
	})
}
