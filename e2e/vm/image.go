package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"github.com/skep-io/skep/e2e/vm/suite"
)

// Config is what a test machine is made of.
type Config struct {
	// Kernel is a directory with the files of one Debian kernel package: boot/vmlinuz-VERSION and
	// lib/modules/VERSION.
	Kernel string
	// Guest is the compiled program guest, and Busybox a static busybox.
	Guest, Busybox string
	// Files are copied into the machine: where to, and what from. Directories are copied whole.
	Files map[string]string
	// Suites run one after the other.
	Suites []suite.Suite
	// Memory is in MiB, Disk the size of the root disk in MiB.
	Memory, Disk int
	// Append are words for the kernel's command line.
	Append string
}

// applets are the names under which busybox is in the machine.
func applets() []string {
	return []string{"sh", "cat", "sleep", "kill", "true", "modprobe", "ip", "mount", "ls", "dmesg"}
}

// Machine is a machine that can be booted.
type Machine struct {
	cfg                    Config
	vmlinuz, initrd, image string
}

// Build makes the disk and the initial root file system of a machine in dir.
func Build(ctx context.Context, dir string, cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, initrd: filepath.Join(dir, "initrd"), image: filepath.Join(dir, "root.img")}
	var err error
	if m.vmlinuz, err = only(filepath.Join(cfg.Kernel, "boot", "vmlinuz-*")); err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	if err := m.tree(ctx, root); err != nil {
		return nil, fmt.Errorf("files of the machine: %w", err)
	}
	if err := m.initial(root); err != nil {
		return nil, fmt.Errorf("initial root: %w", err)
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-d", root, "-O", "^has_journal,quota,project",
		"-E", "quotatype=prjquota", m.image, fmt.Sprintf("%dM", cfg.Disk)).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("root disk: mkfs.ext4: %w: %s", err, out)
	}
	return m, os.RemoveAll(root)
}

// only gives the one file that matches.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s: %d files match, want one", pattern, len(found))
	}
	return found[0], nil
}

// tree makes the root directory.
func (m *Machine) tree(ctx context.Context, root string) error {
	for _, dir := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "tmp", "var/tmp", "lib", "srv", "usr"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{"sbin/init": m.cfg.Guest, "bin/busybox": m.cfg.Busybox, "lib/modules": filepath.Join(m.cfg.Kernel, "lib", "modules")}
	for to, from := range m.cfg.Files {
		files[to] = from
	}
	for to, from := range files {
		if err := copyTree(from, filepath.Join(root, to)); err != nil {
			return err
		}
	}
	for _, name := range applets() {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	if err := os.Symlink("../bin/busybox", filepath.Join(root, "sbin", "modprobe")); err != nil { // the kernel calls it
		return err
	}
	suites, err := json.Marshal(m.cfg.Suites)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"suites.json": string(suites), "etc/skep-guest": "", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n",
		"etc/hosts": "127.0.0.1 localhost\n", "etc/machine-id": strings.Repeat("0", 31) + "1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	version := strings.TrimPrefix(filepath.Base(m.vmlinuz), "vmlinuz-")
	out, err := exec.CommandContext(ctx, m.cfg.Busybox, "depmod", "-b", root, version).CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod: %w: %s", err, out)
	}
	return nil
}

// copyTree copies a file or a directory, with what is below it.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 && path != from {
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// initial writes the initial root: what finds the disk.
func (m *Machine) initial(root string) error {
	f, err := os.Create(m.initrd)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.NewWriter(f)
	version := strings.TrimPrefix(filepath.Base(m.vmlinuz), "vmlinuz-")
	modules := filepath.Join("lib/modules", version)
	for _, dir := range []string{"bin", "lib", "lib/modules", modules} {
		if err := w.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755}); err != nil {
			return err
		}
	}
	files := map[string]string{"init": m.cfg.Guest, "bin/busybox": m.cfg.Busybox}
	for _, index := range []string{"modules.dep", "modules.alias", "modules.symbols"} {
		files[filepath.Join(modules, index)] = filepath.Join(root, modules, index)
	}
	virtio, err := filepath.Glob(filepath.Join(root, modules, "kernel/drivers/*/virtio_*.ko"))
	if err != nil {
		return err
	}
	core, err := filepath.Glob(filepath.Join(root, modules, "kernel/drivers/virtio/*.ko"))
	if err != nil {
		return err
	}
	quotas, err := filepath.Glob(filepath.Join(root, modules, "kernel/fs/quota/*.ko"))
	if err != nil {
		return err
	}
	made := map[string]bool{}
	for _, file := range slices.Concat(virtio, core, quotas) {
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		files[rel] = file
		for dir := filepath.Dir(rel); dir != modules && !made[dir]; dir = filepath.Dir(dir) {
			made[dir] = true
		}
	}
	for _, dir := range sorted(made) {
		if err := w.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755}); err != nil {
			return err
		}
	}
	for _, name := range sorted(files) {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.Copy(w, bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), f.Sync())
}
