package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/internal/fault"
)

func TestOpenDisk_RefusesWhatItCannotRead(t *testing.T) {
	for _, test := range []struct{ file, content, refusal string }{
		{file: "version", content: "2\n", refusal: `layout version "2"`},
		{file: "version", content: "", refusal: `layout version ""`},
		{file: "somebody.db", content: "x", refusal: "it is not skep's"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, test.file), []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openDisk(dir)
		if fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), test.refusal) || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("%s=%q: got %v, want a refusal with %q and the way out", test.file, test.content, err, test.refusal)
		}
	}
}

func TestDisk_RemembersAndForgetsTheSwarm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := membership{ListenAddress: "0.0.0.0:2377", AdvertiseAddress: "192.0.2.1:2377", Managers: []string{"192.0.2.2:2377"}}
	if err := d.saveMembership(want); err != nil {
		t.Fatal(err)
	}
	if d, err = openDisk(dir); err != nil {
		t.Fatal(err)
	}
	got, ok, err := d.membership()
	if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
		t.Fatalf("ok %v, %v, -want +got:\n%s", ok, err, diff)
	}
	if err := os.MkdirAll(d.path("raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.forget(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.membership(); ok || err != nil {
		t.Errorf("after forget: in a swarm %v, %v", ok, err)
	}
	if _, err := os.Stat(d.path("raft")); !os.IsNotExist(err) {
		t.Errorf("the store is still there: %v", err)
	}
}

func TestDisk_NamesADamagedMembership(t *testing.T) {
	d, err := openDisk(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("swarm.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.membership(); err == nil || !strings.Contains(err.Error(), "swarm leave --force") {
		t.Errorf("got %v, want the file and the way out", err)
	}
}
