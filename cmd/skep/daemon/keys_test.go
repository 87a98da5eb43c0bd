package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/store/seal"
)

func managerCredentials(t testing.TB) ca.Credentials {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return catest.Credentials(t, root, ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: api.Role_ROLE_MANAGER}, 0)
}

var errCrash = errors.New("crash")

// TestNodeKeys_OneKeyAlwaysOpensAll changes the unlock key in every way, and stops at every step: at each, what opens the store
// also opens the node key.
func TestNodeKeys_OneKeyAlwaysOpensAll(t *testing.T) {
	first, second := holders{seal.NewKey()}, holders{seal.NewKey()}
	for _, test := range []struct {
		name          string
		before, after holders
	}{
		{"turned on", nil, first},
		{"rotated", first, second},
		{"turned off", first, nil},
		{"unchanged", first, first},
		{"unchanged, in clear", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			credentials := managerCredentials(t)
			dir := t.TempDir()
			keys := openKeys(dir, test.before)
			if err := keys.Save(credentials); err != nil {
				t.Fatal(err)
			}
			opens(t, dir, test.before, true)
			err := keys.reseal(test.before, test.after, func() error {
				opens(t, dir, test.before, true) // the store is not sealed anew
				opens(t, dir, test.after, true)  // or is, and the manager crashed
				return errCrash
			})
			if !errors.Is(err, errCrash) {
				t.Fatalf("got %v", err)
			}
			opens(t, dir, test.before, true)
			opens(t, dir, test.after, true)

			// After a restart with either key all of it happens again.
			for _, survivor := range []holders{test.before, test.after} {
				again := openKeys(dir, survivor)
				if _, err := again.Load(); err != nil {
					t.Fatal(err)
				}
				if err := again.reseal(survivor, test.after, func() error { return nil }); err != nil {
					t.Fatal(err)
				}
				opens(t, dir, test.after, true)
				inClear(t, dir, len(test.after) == 0)
				if len(test.before) > 0 && len(test.after) > 0 && !test.before[0].Equal(test.after[0]) {
					opens(t, dir, test.before, false)
				}
				if err := again.reseal(test.after, test.before, func() error { return errCrash }); !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestNodeKeys_RenewalStaysSealed(t *testing.T) {
	unlock := holders{seal.NewKey()}
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	name := ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: api.Role_ROLE_MANAGER}
	dir := t.TempDir()
	keys := openKeys(dir, nil)
	if err := keys.Save(catest.Credentials(t, root, name, 0)); err != nil {
		t.Fatal(err)
	}
	inClear(t, dir, true)
	if err := keys.Protect(unlock); err != nil {
		t.Fatal(err)
	}
	inClear(t, dir, false)
	fresh := catest.Credentials(t, root, name, 0)
	if err := keys.Save(fresh); err != nil {
		t.Fatal(err)
	}
	inClear(t, dir, false)
	loaded, err := openKeys(dir, unlock).Load()
	if err != nil || !loaded.Chain()[0].Equal(fresh.Chain()[0]) {
		t.Errorf("got other credentials, %v", err)
	}
	opens(t, dir, holders{seal.NewKey()}, false)
	opens(t, dir, nil, false)
}

func opens(t *testing.T, dir string, h holders, want bool) {
	t.Helper()
	_, err := openKeys(dir, h).Load()
	switch {
	case want && err != nil:
		t.Errorf("the node key does not open: %v", err)
	case !want && !errors.Is(err, keyfile.ErrLocked):
		t.Errorf("got %v, want %v", err, keyfile.ErrLocked)
	}
}

func inClear(t *testing.T, dir string, want bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "certificates", "swarm-node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Contains(text, []byte("BEGIN PRIVATE KEY")); got != want {
		t.Errorf("the node key is in clear: %v, want %v", got, want)
	}
}

func FuzzSealer(f *testing.F) {
	both := &sealer{holders: holders{seal.NewKey(), seal.NewKey()}}
	sealed, err := both.Seal([]byte("node key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)/2])
	f.Add([]byte{sealedKeyFormat, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		plaintext, err := (&sealer{holders: both.holders}).Open(data)
		if err == nil && string(plaintext) != "node key" {
			t.Error("opened what nobody sealed")
		}
	})
}
