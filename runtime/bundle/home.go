package bundle

import (
	"io"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/passwd"
)

// setHome gives a process HOME, as runc does, which engines count on: the home directory of its user in the root file system, or /.
func setHome(rootfs string, p *specs.Process) {
	if p == nil || slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return
	}
	p.Env = append(slices.Clip(p.Env), "HOME="+passwd.Home(readAccounts(rootfs), p.User.UID))
}

// readAccounts reads the /etc/passwd of a root file system, which may be a hostile image's: no link leads out of it, and nothing but a file
// is read. It is nil where that can't be.
func readAccounts(rootfs string) []byte {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil
	}
	defer root.Close()
	file, err := root.OpenFile("etc/passwd", os.O_RDONLY|unix.O_NONBLOCK, 0) // opening a pipe waits for nobody
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, passwd.MaxFile))
	if err != nil {
		return nil
	}
	return data
}
