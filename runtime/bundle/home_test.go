package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestSetHome(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("app:x:7:7::/outside:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		put  func(path string) error
		env  []string
		want string
	}{
		"of the image":   {func(path string) error { return os.WriteFile(path, []byte("app:x:7:7::/srv/app:\n"), 0o644) }, nil, "HOME=/srv/app"},
		"of the bundle":  {func(path string) error { return os.WriteFile(path, []byte("app:x:7:7::/srv/app:\n"), 0o644) }, []string{"HOME=/data"}, "HOME=/data"},
		"no such user":   {func(path string) error { return os.WriteFile(path, []byte("root:x:0:0::/root:\n"), 0o644) }, nil, "HOME=/"},
		"no file":        {func(string) error { return nil }, nil, "HOME=/"},
		"a link outside": {func(path string) error { return os.Symlink(outside, path) }, nil, "HOME=/"},
		"a link upwards": {func(path string) error { return os.Symlink("../../../../../../../../.."+outside, path) }, nil, "HOME=/"},
		"a pipe":         {func(path string) error { return unix.Mkfifo(path, 0o644) }, nil, "HOME=/"},
		"a directory":    {func(path string) error { return os.Mkdir(path, 0o755) }, nil, "HOME=/"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(root+"/etc", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.put(root + "/etc/passwd"); err != nil {
				t.Fatal(err)
			}
			p := &specs.Process{User: specs.User{UID: 7}, Env: tc.env}
			setHome(root, p)
			if !slices.Equal(p.Env, []string{tc.want}) {
				t.Errorf("got %q, want %s", p.Env, tc.want)
			}
		})
	}
}
