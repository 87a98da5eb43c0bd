package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// secret is what may be told of a file in /run/secrets.
type secret struct {
	name   string
	sum    [sha256.Size]byte
	mode   fs.FileMode
	uid    uint32
	gid    uint32
	fsType string
	err    error
}

// String never contains the secret.
func (s secret) String() string {
	if s.err != nil {
		return fmt.Sprintf("unreadable: %v", s.err)
	}
	return fmt.Sprintf("sha256:%x mode %04o owner %d:%d on %s", s.sum, s.mode.Perm(), s.uid, s.gid, s.fsType)
}

// secrets returns the secrets of this task, by name.
func (m machine) secrets() []secret {
	const dir = "run/secrets"
	entries, err := os.ReadDir(m.path(dir))
	if err != nil {
		return nil
	}
	var found []secret
	for _, entry := range entries {
		found = append(found, readSecret(m.path(dir+"/"+entry.Name()), entry.Name()))
	}
	return found
}

func readSecret(path, name string) secret {
	s := secret{name: name}
	data, err := os.ReadFile(path)
	if err != nil {
		s.err = err
		return s
	}
	s.sum = sha256.Sum256(data)
	info, err := os.Stat(path)
	if err != nil {
		s.err = err
		return s
	}
	s.mode = info.Mode()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.uid, s.gid = st.Uid, st.Gid
	}
	s.fsType = fileSystem(path)
	return s
}

// fileSystem names the file systems that matter here; see statfs(2).
func fileSystem(path string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return notVisible
	}
	switch uint32(st.Type) {
	case 0x858458f6:
		return "ramfs"
	case 0x01021994:
		return "tmpfs"
	case 0x794c7630:
		return "overlay"
	case 0xef53:
		return "ext4"
	default:
		return fmt.Sprintf("%#x", uint32(st.Type))
	}
}
