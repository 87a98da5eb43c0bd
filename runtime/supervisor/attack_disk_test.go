package supervisor_test

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"testing"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/quota"
)

// TestAttack_DiskHog holds that a container whose writable layer is bounded can't write more in its root file system, by data, by copies of the
// image's files, by empty files, or by leaving the project. The control is the same container without a bound.
func TestAttack_DiskHog(t *testing.T) {
	if err := quota.Check(t.TempDir()); err != nil {
		t.Skipf("needs a file system with project quotas at TMPDIR: %v", err)
	}
	const bound, tried = 8, 32 // MiB
	n := newAttack(t)
	if err := os.WriteFile(n.layer+"/large", bytes.Repeat([]byte{1}, tried<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for id, bounded := range map[string]bool{"bounded": true, "control": false} {
		r := n.attack(id, "fill", "32")
		dir := t.TempDir()
		r.Rootfs = client.Rootfs{Lower: []string{n.layer}, Upper: dir + "/upper", Work: dir + "/work"}
		for _, p := range []string{r.Rootfs.Upper, r.Rootfs.Work} {
			if err := os.Mkdir(p, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		const project = 3 << 28
		if bounded {
			if err := quota.Bound(project, bound<<20, r.Rootfs.Upper, r.Rootfs.Work); err != nil {
				t.Fatal(err)
			}
		}
		_, out := n.complete(r)
		const over, stays = "disk quota exceeded", "invalid argument" // which is how the kernel refuses another project
		for what, want := range map[string]string{
			"allocate": over, "copy up": ".*" + over, "written": "7 MiB, .*: " + over, "empty files": ".*: " + over,
			"another project": stays, "no project": stays, "not inherited": stays,
		} {
			if !bounded {
				want = map[string]string{"another project": ".*", "no project": ".*", "not inherited": ".*", "allocate": "ok", "copy up": "ok", "written": "32 MiB, ok", "empty files": "ok"}[what]
			}
			if !regexp.MustCompile(`(?m)^` + what + `: ` + want + `$`).MatchString(out) {
				t.Errorf("%s, %s: want %q in\n%s", id, what, want, out)
			}
		}
		if bounded {
			if err := errors.Join(os.RemoveAll(r.Rootfs.Upper), os.RemoveAll(r.Rootfs.Work), quota.Forget(project, dir)); err != nil {
				t.Error(err)
			}
		}
	}
}
