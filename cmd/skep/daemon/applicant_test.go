package daemon

import (
	"os"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store/seal"
)

func TestApply_OneTokenIsOneKey(t *testing.T) {
	d := newTestDaemon(t)
	tok, other := token.New(token.Digest{1}), token.New(token.Digest{1})
	first, err := d.apply(tok)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.apply(tok); err != nil || !again.Equal(first) {
		t.Errorf("the same token got another key: %v", err)
	}
	second, err := d.apply(other)
	if err != nil || second.Equal(first) {
		t.Errorf("another token got the same key: %v", err)
	}
	if back, err := d.apply(tok); err != nil || back.Equal(first) {
		t.Errorf("a token that was given up got its key back: %v", err)
	}
	assertUntouched(t, d)
}

func TestApplicant_WaitsBeyondARestart(t *testing.T) {
	d := newTestDaemon(t)
	tok := token.New(token.Digest{1})
	key, err := d.apply(tok)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.keepWaiting(seal.SourceKeyFile); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.disk.path(applicantFile))
	if err != nil || strings.Contains(string(text), tok.Reveal()[60:]) {
		t.Errorf("the token is on the disk: %v", err)
	}
	if info, err := os.Stat(d.disk.path(applicantFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	restarted := &Daemon{disk: d.disk, logger: d.logger}
	if err := restarted.disk.forget(); err != nil { // as at the next start
		t.Fatal(err)
	}
	restarted.resumeApplicant()
	info := &api.GetInfoResponse{}
	if restarted.describeMembership(info); info.GetState() != api.LocalNodeState_LOCAL_NODE_STATE_PENDING {
		t.Errorf("state %v", info.GetState())
	}
	if again, err := restarted.apply(tok); err != nil || !again.Equal(key) {
		t.Errorf("another key after a restart: %v", err)
	}
	if _, err := restarted.LeaveSwarm(t.Context(), &api.LeaveSwarmRequest{}); err != nil {
		t.Errorf("leave: %v", err)
	}
	assertUntouched(t, d)
}

func TestApplicant_NoKeyLiesInClearWhereTheNodesWouldNot(t *testing.T) {
	d := newTestDaemon(t)
	if _, err := d.apply(token.New(token.Digest{1})); err != nil {
		t.Fatal(err)
	}
	if err := d.keepWaiting(seal.SourceTPM2); err != nil {
		t.Fatal(err)
	}
	assertUntouched(t, d)
}

func TestApplicant_ADamagedOneIsDropped(t *testing.T) {
	for _, text := range []string{"", "{}", `{"secret_hash":"AAAA","key":"AAAA"}`} {
		d := newTestDaemon(t)
		if err := os.WriteFile(d.disk.path(applicantFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if d.resumeApplicant(); d.applicant != nil {
			t.Errorf("%q: %v", text, d.applicant)
		}
	}
}

func TestApplicant_EndsWithAMembership(t *testing.T) {
	d := newTestDaemon(t)
	tok := token.New(token.Digest{1})
	first, err := d.apply(tok)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.keepWaiting(seal.SourceKeyFile); err != nil {
		t.Fatal(err)
	}
	d.endApplication()
	assertUntouched(t, d)
	if again, err := d.apply(tok); err != nil || again.Equal(first) {
		t.Errorf("a member's key serves for another join: %v", err)
	}
}
