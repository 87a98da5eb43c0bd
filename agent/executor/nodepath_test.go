package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// A container that may write in one granted directory could put a link there, for another grant to follow.
func TestNodePath_FollowsNoLinkThatAContainerCouldMake(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "data/sub"), 0o755), os.Symlink("/etc", filepath.Join(dir, "link")),
		os.Symlink("data", filepath.Join(dir, "near")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "data/sub"): "", filepath.Join(dir, "link"): "is a symbolic link, to /etc: grant that path itself",
		filepath.Join(dir, "link/passwd"): "is a symbolic link", filepath.Join(dir, "near/sub"): "is a symbolic link",
		filepath.Join(dir, "none"): "this node has no ",
	} {
		got, err := nodePath(file)
		if want == "" && (err != nil || got != file) || want != "" && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %s, %v, want %q", file, got, err, want)
		}
	}
	if target, err := os.Readlink("/var/run"); err == nil {
		if got, err := nodePath("/var/run"); err != nil || got != "/run" {
			t.Errorf("/var/run, a link to %s: %s, %v", target, got, err)
		}
	}
}

// What the daemon itself lives from is given to nobody, neither directly nor as a part of what is above it.
func TestBind_GivesNothingOfTheDaemon(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "skep/agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	given := func(grant, asked string) error {
		task := newTask(&api.ContainerSpec{Command: []string{"/x"}})
		task.Grants = []*api.Grant{{Spec: &api.GrantSpec{Mounts: []*api.GrantMount{{Source: grant, Target: "/granted"}}}}}
		if asked != "" {
			task.Spec.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_BIND, Source: asked, Target: "/granted"}}
		}
		_, err := compiled(t, plan{task: task, idBase: 1 << 28, private: []string{filepath.Join(dir, "skep")}})
		return err
	}
	for _, err := range []error{
		given(filepath.Join(dir, "skep"), ""), given(filepath.Join(dir, "skep/agent"), ""), given(dir, filepath.Join(dir, "skep/agent")),
	} {
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "is of Skep itself, with its keys") {
			t.Errorf("got %v", err)
		}
	}
	if err := given(dir, ""); err != nil {
		t.Error(err)
	}
}
