package foreign

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNew_ContainersMayPassWhateverTheUmask holds that the root users of containers reach their directories when the
// supervisor keeps all that it makes to itself.
func TestNew_ContainersMayPassWhateverTheUmask(t *testing.T) {
	umask := unix.Umask(0o077)
	defer unix.Umask(umask)
	dir := filepath.Join(t.TempDir(), "bundles", "node")
	r, err := New("/bin/true", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm() != 0o711 {
			t.Errorf("%s: %v, %v", d, st.Mode(), err)
		}
	}
	r.Close()
}

func TestNew_RefusesWhatIsNoProgram(t *testing.T) {
	for _, program := range []string{"runc", "/none", t.TempDir() + "/x"} {
		if _, err := New(program, t.TempDir(), nil); err == nil {
			t.Errorf("%s was taken", program)
		}
	}
}
