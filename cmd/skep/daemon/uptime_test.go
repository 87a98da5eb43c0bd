package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/store/seal"
)

// member makes the disk that of a member of a swarm.
func member(t *testing.T, d *Daemon, listen string, h holders) {
	t.Helper()
	keys := openKeys(d.cfg.DataDir, h)
	if err := errors.Join(keys.Save(workerCredentials(t)), d.disk.saveMembership(membership{ListenAddress: listen})); err != nil {
		t.Fatal(err)
	}
}

func state(d *Daemon) (api.LocalNodeState, string) {
	info := &api.GetInfoResponse{}
	d.describeMembership(info)
	return info.GetState(), info.GetError()
}

func TestResume_ANodeThatFallsSaysWhyAndIsTriedAgain(t *testing.T) {
	d := newTestDaemon(t)
	taken := silent(t).Addr().String()
	member(t, d, taken, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.runNodes(ctx) }()
	for range 2 {
		d.resume(ctx)
		<-d.fallen
		if got, why := state(d); got != api.LocalNodeState_LOCAL_NODE_STATE_ERROR || !strings.Contains(why, taken) {
			t.Errorf("state %v: %q", got, why)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestResume_ADamagedDiskIsNotTriedAgain(t *testing.T) {
	d := newTestDaemon(t)
	member(t, d, "127.0.0.1:0", nil)
	if err := os.WriteFile(d.disk.path("certificates/swarm-node.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.resume(t.Context())
	if got, why := state(d); got != api.LocalNodeState_LOCAL_NODE_STATE_ERROR || !strings.Contains(why, "swarm leave --force") {
		t.Errorf("state %v: %q", got, why)
	}
	select {
	case <-d.fallen:
		t.Error("it would be tried again")
	default:
	}
}

func TestUnlockSwarm_RefusesOtherKeysAndStaysLocked(t *testing.T) {
	d := newTestDaemon(t)
	unlock := seal.NewKey()
	if _, err := d.UnlockSwarm(t.Context(), &api.UnlockSwarmRequest{}); !errors.Is(err, errNotMember) {
		t.Errorf("in no swarm: %v", err)
	}
	member(t, d, "127.0.0.1:0", holders{unlock})
	if _, err := d.UnlockSwarm(t.Context(), &api.UnlockSwarmRequest{}); err == nil || !strings.Contains(err.Error(), "swarm is not locked") {
		t.Errorf("not locked: %v", err)
	}
	d.resume(t.Context())
	for key, want := range map[string]string{"": "not an unlock key", seal.NewKey().UnlockKey(): "invalid key"} {
		if _, err := d.UnlockSwarm(t.Context(), &api.UnlockSwarmRequest{UnlockKey: key}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if got, _ := state(d); got != api.LocalNodeState_LOCAL_NODE_STATE_LOCKED {
			t.Errorf("state %v", got)
		}
	}
	if err := d.absence(); !errors.Is(err, errLocked) {
		t.Errorf("a call: %v", err)
	}
	if _, err := openKeys(d.cfg.DataDir, holders{unlock}).Load(); errors.Is(err, keyfile.ErrLocked) {
		t.Error(err)
	}
}
