package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// anImage makes two layers: the upper one deletes, replaces and links.
func anImage(t *testing.T) (upper, lower string) {
	t.Helper()
	upper, lower = t.TempDir(), t.TempDir()
	for _, dir := range []string{lower + "/app/data", upper + "/app"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{lower + "/app/data/a": "a", lower + "/gone": "x", lower + "/app/b": "old", upper + "/app/b": "new"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		unix.Mknod(upper+"/gone", unix.S_IFCHR, 0), os.Symlink("/app/data", upper+"/link"), os.Symlink("/../../../../etc", upper+"/out"),
		os.Chmod(upper, 0o755), os.Chmod(lower, 0o755), os.WriteFile(lower+"/suid", nil, 0o755), os.Chmod(lower+"/suid", 0o755|os.ModeSetuid),
	} {
		if err != nil {
			t.Skipf("needs a disk for layers: %v", err)
		}
	}
	return upper, lower
}

func TestImage_IsShownReadOnlyWithTheContainersIDs(t *testing.T) {
	n := newNode(t)
	upper, lower := anImage(t)
	mount := func(target string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: "overlay", Source: "overlay", Options: options}
	}
	both := []string{"lowerdir+=" + upper, "lowerdir+=" + lower, "rw"}
	r := n.request("images", "wait")
	r.Spec.Mounts = append(r.Spec.Mounts,
		mount("/all", both...), mount("/one", "lowerdir+="+upper), mount("/data", append(slices.Clone(both), "X-mount.subdir=link")...),
		specs.Mount{Destination: "/data/a", Type: "bind", Source: lower + "/gone", Options: []string{"bind"}},
	)
	root := fmt.Sprintf("/proc/%d/root", n.begin(r).Pid)
	for name, want := range map[string]string{"/all/app/b": "new", "/all/app/data/a": "a", "/all/gone": "", "/one/app/b": "new", "/one/gone": "", "/one/suid": ""} {
		got, err := os.ReadFile(root + name)
		if string(got) != want || want == "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := os.ReadFile(root + "/data/a"); string(got) != "x" {
		t.Errorf("the mount over a file of the image is %q, %v", got, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(root+"/all/app/b", &st); err != nil || st.Uid != r.Spec.Linux.UIDMappings[0].HostID {
		t.Errorf("root's file is of %d, %v", st.Uid, err)
	}
	for _, target := range []string{"/all", "/one", "/data"} {
		if err := os.WriteFile(root+target+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write to %s: %v", target, err)
		}
	}
	if left, _ := filepath.Glob(upper + "/new"); left != nil {
		t.Errorf("written to a layer: %s", left)
	}
}

func TestImage_RefusesWhatIsNoDirectoryInIt(t *testing.T) {
	n := newNode(t)
	upper, lower := anImage(t)
	for sub, want := range map[string]string{"none": "no such file", "app/b": "not a directory", "out": "no such file", "gone": "no such file"} {
		r := n.request("no-"+filepath.Base(sub), "wait")
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{
			Destination: "/x", Type: "overlay", Options: []string{"lowerdir+=" + upper, "lowerdir+=" + lower, "X-mount.subdir=" + sub},
		})
		if _, err := n.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", sub, err, want)
		}
	}
}
