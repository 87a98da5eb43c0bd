package supervisor_test

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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
