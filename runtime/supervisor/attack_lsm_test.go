package supervisor_test

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/lsm"
)

// TestAttack_AppArmorIsASecondWall takes the first one away: a container without seccomp and with CAP_SYS_ADMIN in its
// user namespace may mount, and does so in the control; under the profile it may not.
func TestAttack_AppArmorIsASecondWall(t *testing.T) {
	if !lsm.AppArmor() {
		t.Skip("needs a kernel with AppArmor on, as make e2e-vm has")
	}
	n := newNode(t)
	for id, tc := range map[string]struct{ profile, want string }{
		"control":  {"", "ok"},
		"confined": {lsm.DefaultProfile, "permission denied"},
	} {
		r := n.request(id, "try")
		r.Spec.Linux.Seccomp = nil
		r.Spec.Process.ApparmorProfile = tc.profile
		caps := append(slices.Clone(r.Spec.Process.Capabilities.Bounding), "CAP_SYS_ADMIN")
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		state, text := n.complete(r)
		if got := decode[map[string]string](t, text)["mount"]; got != tc.want {
			t.Errorf("%s: mount: %q, want %q; in force are %v", id, got, tc.want, state.Enforced)
		}
	}
}

// TestAttack_AppArmorConfinesEveryProcess holds that the profile is in force, and enforced, for the first process of a
// container and for commands that are run in it.
func TestAttack_AppArmorConfinesEveryProcess(t *testing.T) {
	if !lsm.AppArmor() {
		t.Skip("needs a kernel with AppArmor on, as make e2e-vm has")
	}
	n := newNode(t)
	const label = "/proc/self/attr/current"
	want := lsm.DefaultProfile + " (enforce)\n"
	r := n.request("first", "files", label)
	r.Spec.Process.ApparmorProfile = lsm.DefaultProfile
	state, text := n.complete(r)
	if got := decode[map[string]string](t, text)[label]; !strings.HasPrefix(got, want) {
		t.Errorf("the first process is %q, want %q; in force are %v", got, want, state.Enforced)
	}
	r = n.request("c", "wait")
	r.Spec.Process.ApparmorProfile = lsm.DefaultProfile
	n.begin(r)
	n.awaitLine("c", "waiting")
	_, text, _ = n.ended(n.exec("c", client.ExecRequest{}, "files", label))
	if got := decode[map[string]string](t, text)[label]; !strings.HasPrefix(got, want) {
		t.Errorf("a command is %q, want %q", got, want)
	}
}
