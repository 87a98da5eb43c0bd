package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// newLab returns an empty network of machines that run the programs in bin, or skips the test.
func newLab(t *testing.T) *lab.Network {
	t.Helper()
	if testing.Short() {
		t.Skip("needs built programs and root: run without -short")
	}
	if missing := lab.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	programs, err := lab.ProgramsIn("../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "skep-e2e-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	network, err := lab.NewNetwork(dir, programs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, network)
		}
		if err := errors.Join(network.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return network
}

// swarmOf adds managers to the network, in one swarm, and returns when all of them vote.
func swarmOf(t *testing.T, network *lab.Network, names ...string) []*lab.Machine {
	t.Helper()
	ctx, cancel := deadline()
	defer cancel()
	var machines []*lab.Machine
	for _, name := range names {
		m, err := network.NewMachine(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		machines = append(machines, m)
	}
	if err := network.Swarm(ctx, names...); err != nil {
		t.Fatal(err)
	}
	if _, err := awaitOutput(machines[0], fmt.Sprintf("Managers: %d$", len(names)), "info"); err != nil {
		t.Fatal(err)
	}
	return machines
}

// stateOnDisk returns all that a manager's disk holds. Its daemon must not run, its store must be sealed by its key file, and
// stays as it is.
func stateOnDisk(t *testing.T, m *lab.Machine) *api.StoreSnapshot {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "raft"), os.DirFS(filepath.Join(m.DataDir(), "raft"))); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.KeyFile(vfs.OS{}, filepath.Join(m.DataDir(), "store.key"))
	if err != nil {
		t.Fatal(err)
	}
	disk := store.Disk{Dir: filepath.Join(dir, "raft"), KEK: kek, Source: seal.SourceKeyFile}
	// The whole log counts, as it would for a manager that starts alone.
	if err := store.ForceNewCluster(disk, "127.0.0.1:1"); err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	s, err := store.Open(store.Config{Disk: disk})
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	state, err := s.Snapshot(ctx)
	cancel()
	if err := errors.Join(err, <-ended); err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	return state
}
