package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/store/seal"
)

// A node that can't gossip does not open its agent, which nobody would close.
func TestRun_OpensNoAgentWithoutGossip(t *testing.T) {
	d := newTestDaemon(t)
	m := membership{ListenAddress: "127.0.0.1:0", AdvertiseAddress: "no address"}
	n := d.newNode(m, openKeys(d.cfg.DataDir, nil), ca.NewIdentity(workerCredentials(t)), seal.Key{}, 0)
	if err := n.run(t.Context()); err == nil || !strings.Contains(err.Error(), "advertise address") {
		t.Errorf("got %v, want an error about the advertised address", err)
	}
	if _, err := os.Stat(filepath.Join(d.cfg.DataDir, "agent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the agent began to use its folder (%v)", err)
	}
}
