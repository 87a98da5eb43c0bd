package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

// mounted is a mount of a container, as proc_pid_mountinfo(5) shows it.
type mounted struct {
	id, parent uint64
	device     uint64
	target     string
	source     string
}

// readMounts reads the table of a process.
func readMounts(pid int) ([]mounted, error) {
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	return parseMounts(string(table)), err
}

// parseMounts gives the file systems in memory of a table. Lines that it doesn't understand are none of ours.
func parseMounts(table string) (out []mounted) {
	for line := range strings.Lines(table) {
		left, right, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if len(f) < 6 || len(g) < 2 || g[0] != "tmpfs" && g[0] != "ramfs" {
			continue
		}
		first, second, _ := strings.Cut(f[2], ":")
		id, err1 := strconv.ParseUint(f[0], 10, 64)
		parent, err2 := strconv.ParseUint(f[1], 10, 64)
		major, err3 := strconv.ParseUint(first, 10, 32)
		minor, err4 := strconv.ParseUint(second, 10, 32)
		if errors.Join(err1, err2, err3, err4) != nil {
			continue
		}
		out = append(out, mounted{
			id: id, parent: parent, device: unix.Mkdev(uint32(major), uint32(minor)), target: unescape(f[4]), source: g[1],
		})
	}
	return out
}

// unescape undoes the kernel's \ooo.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(text)
}

// find gives the mount that has a mark and is at a target, the topmost if there are several: the container may have shown the same files at
// other places, too. If none is there, because a link of the image led elsewhere, all that have the mark must be at one place.
func find(mounts []mounted, mark, target string) (mounted, error) {
	marked := slices.DeleteFunc(slices.Clone(mounts), func(m mounted) bool { return m.source != mark })
	place := path.Clean("/" + target)
	if len(marked) > 0 && !slices.ContainsFunc(marked, func(m mounted) bool { return m.target == place }) {
		place = marked[0].target
		if slices.ContainsFunc(marked, func(m mounted) bool { return m.target != place }) {
			return mounted{}, fmt.Errorf("%w: the container shows it at several places, and not at %.128q", protocol.ErrState, path.Clean("/"+target))
		}
	}
	marked = slices.DeleteFunc(marked, func(m mounted) bool { return m.target != place })
	for _, m := range marked {
		if !slices.ContainsFunc(marked, func(on mounted) bool { return on.parent == m.id }) {
			return m, nil
		}
	}
	return mounted{}, fmt.Errorf("%w: it is not where it was put: the container took it away, or was made without it or by a version of the runtime that can't rewrite files",
		protocol.ErrState)
}

// open gives the root of a mount, in the mount namespace of the thread. The container may have moved things since the table was read: what is
// found is the mount of the table, or an error.
func (m mounted) open() (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, m.target, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("%w: find its mount: %w", protocol.ErrState, err)
	}
	var stat unix.Statx_t
	var fs unix.Statfs_t
	err = errors.Join(unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stat), unix.Fstatfs(fd, &fs))
	same := stat.Mnt_id == m.id && unix.Mkdev(stat.Dev_major, stat.Dev_minor) == m.device &&
		(fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC)
	if err == nil && !same {
		err = fmt.Errorf("%w: another mount is in its place", protocol.ErrState)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
