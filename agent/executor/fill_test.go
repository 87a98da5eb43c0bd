package executor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/spec"
)

// filled copies a directory of an image into a new one and returns what is there.
func filled(t *testing.T, to string, layers ...string) map[string]string {
	t.Helper()
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := copyDirectory(t.Context(), layers, "/data", root); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		name := strings.TrimPrefix(path, to+"/")
		switch {
		case err != nil || path == to:
		case d.Type()&os.ModeSymlink != 0:
			got[name], err = os.Readlink(path)
		case d.IsDir():
			got[name] = "/"
		default:
			var text []byte
			text, err = os.ReadFile(path)
			got[name] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCopyDirectory_GivesAVolumeWhatTheImageHas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make whiteouts and to own files")
	}
	bottom := tree(t, "data", "data/sub", "data/a=bottom", "data/gone=x", "data/sub/old=x", "data/deep", "data/deep/b=b")
	top := tree(t, "data", "data/a=top", "wh:data/gone", "opaque:data/sub", "data/sub/new=y", "data/link->/etc/passwd")
	if err := os.Lchown(filepath.Join(bottom, "data/deep/b"), 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(top, "data"), 0o751); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(top, "data/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "top", "sub": "/", "sub/new": "y", "deep": "/", "deep/b": "b", "link": "/etc/passwd"}
	to := t.TempDir()
	if diff := cmp.Diff(want, filled(t, to, top, bottom)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Lstat(filepath.Join(to, "deep/b"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 7 || st.Gid != 8 {
		t.Errorf("owner %d:%d", st.Uid, st.Gid)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("the volume has the mode %v, %v", info.Mode(), err)
	}
	if diff := cmp.Diff(want, filled(t, to, top, bottom)); diff != "" { // as after a crash in its midst
		t.Errorf("copied again (-want +got):\n%s", diff)
	}
}

// TestCopyDirectory_StaysInTheVolume keeps E4 against an image and against what a container put into the volume.
func TestCopyDirectory_StaysInTheVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to own files")
	}
	outside := t.TempDir()
	image := tree(t, "data", "data/sub", "data/sub/file=x")
	to := tree(t, "sub->"+outside)
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := copyDirectory(t.Context(), []string{image}, "/data", root); err == nil {
		t.Error("a link out of the volume was followed")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside of the volume are %v, %v", entries, err)
	}
	for _, image := range []string{tree(t), tree(t, "data=file"), tree(t, "data->/none")} {
		if got := filled(t, t.TempDir(), image); len(got) > 0 {
			t.Errorf("from an image without the directory came %v", got)
		}
	}
}

func TestCompile_MountsVolumes(t *testing.T) {
	task := newTask(&api.ContainerSpec{Command: []string{"/x"}, Mounts: []*api.Mount{
		{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db", Target: "/var/db", ReadOnly: true, VolumeSubpath: "a/./b"},
	}})
	s, err := compiled(t, plan{task: task, idBase: 1 << 28, volumes: map[string]string{"db": "/v/db/data"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := spec.Compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	m := p.Mounts[len(p.Mounts)-1]
	if m.Source != "/v/db/data" || m.Subdir != "a/b" || m.Target != "var/db" || !m.IDMap {
		t.Errorf("%+v", m)
	}
}
