package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// mount is a file system that the container has; see proc_pid_mountinfo(5).
type mount struct {
	path, kind, options, propagation string
	// size in bytes, or 0 if it is not known; entries are the names in a directory, or -1.
	size    uint64
	entries int
	owner   string
}

// String is "tmpfs rw,nosuid,nodev 1048576 bytes, owner 0:0 mode 1777, 0 entries".
func (m mount) String() string {
	text := fmt.Sprintf("%s %s %d bytes, owner %s, %d entries", m.kind, m.options, m.size, m.owner, m.entries)
	if m.propagation != "" {
		text += ", " + m.propagation
	}
	return text
}

// mounts lists what is mounted beside the root and the kernel's own file systems.
func (m machine) mounts() []mount {
	var out []mount
	for l := range strings.Lines(m.read("proc/self/mountinfo")) {
		before, after, ok := strings.Cut(l, " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(types) < 1 || kernels(fields[4]) {
			continue
		}
		one := mount{path: fields[4], kind: types[0], options: fields[5], propagation: strings.Join(fields[6:], " "), entries: -1}
		m.measure(&one)
		out = append(out, one)
	}
	return out
}

// kernels reports whether a mount point is the root or one that every container has.
func kernels(path string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev/"} {
		if path == "/" || path == "/dev" || path == dir || strings.HasPrefix(path, dir) && path != "/dev/shm" {
			return true
		}
	}
	return false
}

func (m machine) measure(one *mount) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(m.path(one.path), &fs); err == nil {
		one.size = fs.Blocks * uint64(fs.Bsize)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(m.path(one.path), &st); err == nil {
		one.owner = fmt.Sprintf("%d:%d mode %o", st.Uid, st.Gid, st.Mode&0o7777)
	}
	if entries, err := os.ReadDir(m.path(one.path)); err == nil {
		one.entries = len(entries)
	}
}
