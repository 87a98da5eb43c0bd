package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What was looked at under a name is what is shown: a link that came in its place meanwhile is not followed.
func TestBind_FollowsNoLinkIfToldSo(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	for _, err := range []error{os.Mkdir(filepath.Join(dir, "a"), 0o755), os.Symlink("/etc", filepath.Join(dir, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, options := range map[string][]string{
		"a": {"bind", "X-skep.nolinks"}, "link": {"bind", "X-skep.nolinks"}, "control": {"bind"},
	} {
		r := n.request(name, "look")
		source := filepath.Join(dir, name)
		if name == "control" {
			source = filepath.Join(dir, "link")
		}
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: source, Options: options})
		if _, err := n.Create(t.Context(), r); (err == nil) != (name != "link") || err != nil && !strings.Contains(err.Error(), unix.ELOOP.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A part of a directory may be what another container made: no link in it leads out, not even to another part.
func TestBind_ShowsAPartAndFollowsNoLink(t *testing.T) {
	n := newNode(t)
	source := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(source, "a/b"), 0o755), os.Symlink("/etc", filepath.Join(source, "out")),
		os.Symlink("a", filepath.Join(source, "within")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for sub, allowed := range map[string]bool{"a/b": true, "out": false, "within": false, "within/b": false, "a/../out": false, "none": false} {
		r := n.request("sub-"+filepath.Base(sub), "look")
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{
			Destination: "/mnt", Type: "bind", Source: source, Options: []string{"bind", "idmap", "X-mount.subdir=" + sub},
		})
		_, err := n.Create(t.Context(), r)
		if (err == nil) != allowed {
			t.Errorf("%s: %v", sub, err)
		}
		if err == nil {
			if err := n.Delete(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
		}
	}
}
