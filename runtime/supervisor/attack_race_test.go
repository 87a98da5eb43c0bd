package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
)

// raceRounds is how many containers are made against a spinning attacker. The control needs a few at most.
const raceRounds = 30

// TestAttack_SwappedMountTargets has one container exchange a directory for a link out of the root, as fast as it can,
// in a directory that it shares with containers which are just being made and which get mounts there. No file or
// directory may ever be made on the host, and nothing may be mounted elsewhere than below the shared directory or, as
// an image's own link could have it, within the container's root.
func TestAttack_SwappedMountTargets(t *testing.T) {
	n := newAttack(t)
	shared, mount := n.shared("/data")
	canary := filepath.Join(n.TempDir(), "canary")
	source := n.TempDir()
	if err := errors.Join(os.Mkdir(canary, 0o777), os.Chmod(canary, 0o777), os.WriteFile(source+"/file", []byte("x"), 0o644),
		os.Mkdir(shared+"/a", 0o777), os.Chmod(shared+"/a", 0o777), os.Symlink(strings.Repeat("../", 20)+canary, shared+"/b")); err != nil {
		t.Fatal(err)
	}
	r := n.attack("attacker", "swap", "/data/a", "/data/b")
	r.Spec.Mounts = append(r.Spec.Mounts, mount)
	n.begin(r)
	n.awaitLine("attacker", "ready")

	made, refusals := 0, map[string]int{}
	for i := range raceRounds {
		r := n.request(fmt.Sprint("c", i), "exit", "0")
		r.Spec.Mounts = append(r.Spec.Mounts, mount,
			specs.Mount{Type: "bind", Source: source, Destination: fmt.Sprintf("/data/a/d%d", i)},
			specs.Mount{Type: "bind", Source: source + "/file", Destination: fmt.Sprintf("/data/a/f%d", i)})
		r.Files = []client.File{{Dir: fmt.Sprintf("/data/a/s%d", i), Name: "key", Data: client.Secret("s")}}
		if _, err := n.Create(t.Context(), r); err != nil {
			refusals[err.Error()[strings.LastIndex(err.Error(), ": "):]]++ // the target changed between two looks
			continue
		}
		made++
		if err := n.Delete(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(canary); err != nil || len(left) != 0 {
		t.Errorf("the attacker made the runtime write on the host: %v, %v", left, err)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), canary) {
		t.Errorf("the attacker made the runtime mount on the host: %v", err)
	}
	t.Logf("%d of %d containers were made; refused were %v", made, raceRounds, refusals)

	// The control: who checks the path first and uses it then is fooled.
	n.until("a naive runtime fooled", func() bool {
		target := filepath.Join(shared, "a")
		for range 1000 {
			if st, err := os.Lstat(target); err == nil && st.IsDir() {
				_ = os.WriteFile(filepath.Join(target, "naive"), nil, 0o600)
			}
		}
		left, err := os.ReadDir(canary)
		return err == nil && len(left) > 0
	})
	if err := n.KillAll(t.Context(), "attacker"); err != nil {
		t.Fatal(err)
	}
	n.await("attacker", client.EventExited)
}

// TestAttack_SwappedKinds has the attacker exchange the source of a mount, a directory within a volume, for a file: the
// mount is never one thing when its kind is looked at and another when it is attached.
func TestAttack_SwappedKinds(t *testing.T) {
	n := newAttack(t)
	shared, mount := n.shared("/data")
	if err := errors.Join(os.Mkdir(shared+"/a", 0o777), os.WriteFile(shared+"/b", []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r := n.attack("attacker", "swap", "/data/a", "/data/b")
	r.Spec.Mounts = append(r.Spec.Mounts, mount)
	n.begin(r)
	n.awaitLine("attacker", "ready")
	for i := range raceRounds {
		r := n.request(fmt.Sprint("c", i), "exit", "0")
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Type: "bind", Source: shared + "/a", Destination: "/target"})
		state, err := n.Create(t.Context(), r)
		if err != nil {
			t.Errorf("round %d: %v", i, err) // whatever it is, it is one thing
			continue
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(state.Pid) + "/root/target"); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		if err := n.Delete(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.KillAll(t.Context(), "attacker"); err != nil {
		t.Fatal(err)
	}
	n.await("attacker", client.EventExited)
}
