package unpack

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestApply_AgreesWithGNUTar applies random layers and lets GNU tar extract the
// same ones: trees, owners, modes, times, links and attributes must be equal.
// The layers are of the kind that build tools write: parents come first, and
// nothing is replaced by something of another kind, where the two differ.
func TestApply_AgreesWithGNUTar(t *testing.T) {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("needs GNU tar")
	}
	base := scratch(t)
	for n := range 25 {
		seed := rand.Uint64()
		data := tarOf(t, randomLayer(rand.New(rand.NewPCG(seed, 0)))...)
		ours, theirs := subdir(t, base, fmt.Sprintf("ours%d", n)), subdir(t, base, fmt.Sprintf("theirs%d", n))
		if _, err := apply(t, ours, nil, data, Limits{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		blob := filepath.Join(base, "blob.tar")
		if err := os.WriteFile(blob, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--numeric-owner", "-xpf", blob, "-C", theirs)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("seed %d: tar: %v: %s", seed, err, out)
		}
		if diff := cmp.Diff(withInodes(t, theirs), withInodes(t, ours)); diff != "" {
			t.Fatalf("seed %d (-tar +ours):\n%s", seed, diff)
		}
	}
}

// randomLayer makes up to 60 entries below a root entry.
func randomLayer(random *rand.Rand) []ent {
	entries := []ent{dirEnt("./", 0o755)}
	dirs, files := []string{""}, []string{}
	for n := range random.IntN(60) {
		name := dirs[random.IntN(len(dirs))] + fmt.Sprintf("n%d", n)
		var e ent
		switch random.IntN(7) {
		case 0, 1:
			e = dirEnt(name+"/", 0o700|random.Int64N(0o4000))
			dirs = append(dirs, name+"/")
		case 2:
			e = symlink(name, []string{"/etc", "../x", "n1", "."}[random.IntN(4)])
		case 3:
			e = device(name, tar.TypeFifo, 0, 0)
		case 4:
			e = device(name, tar.TypeChar, 1, random.Int64N(9)+1)
		case 5:
			if len(files) > 0 {
				entries = append(entries, hardlink(name, files[random.IntN(len(files))]))
				continue
			}
			fallthrough
		default:
			e = file(name, fmt.Sprint(random.Uint64())).mode(random.Int64N(0o10000))
			if random.IntN(3) == 0 {
				e = e.xattr("user.k", "v")
			}
			files = append(files, name)
		}
		e.ModTime = epoch.AddDate(0, 0, n)
		entries = append(entries, e.owned(random.IntN(3)*1000, random.IntN(70_000)))
	}
	return entries
}

// withInodes is tree with times, and with the number of links of each file.
func withInodes(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries := tree(t, dir)
	for name, is := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		entries[name] = fmt.Sprintf("%s @%d x%d", is, st.Mtim.Sec, st.Nlink)
	}
	return entries
}
