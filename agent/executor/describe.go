package executor

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/internal/passwd"
	"github.com/skep-io/skep/runtime/lsm"
)

// cleanupTimeout bounds what is done to undo a failed start, after its own context may have ended.
const cleanupTimeout = 10 * time.Second

// describe compiles the container of a task, without its secrets.
func (e *Executor) describe(ctx context.Context, t *api.Task, h *held, address netip.Addr) (Container, error) {
	user, err := lookupUser(h.image, cmp.Or(containerOf(t).GetUser(), h.image.Config.User), containerOf(t).GetGroups())
	if err != nil {
		return Container{}, err
	}
	p := plan{
		task: t, image: h.image.Config.ImageConfig, nodeID: e.cfg.NodeID, nodeName: e.cfg.Hostname, user: user, idBase: h.idBase,
		mounted: h.mounted, private: e.private, cdi: e.cfg.CDI, moved: map[string]string{}, selinux: h.selinux,
	}
	if p.volumes, err = e.volumes(ctx, t, h); err != nil {
		return Container{}, err
	}
	if lsm.ProfileLoaded() {
		p.appArmor = lsm.DefaultProfile
	}
	s := copySpec(e.defaults)
	if err := p.compile(s); err != nil {
		return Container{}, err
	}
	hosts, dns, err := nameFiles(p.container(), p.hostname(), address, os.ReadFile)
	if err != nil {
		return Container{}, err
	}
	identity, err := e.cfg.Identities.Provide(t.GetId(), p.onNode(user.uid), p.onNode(user.gid), h.selinux)
	if err != nil {
		return Container{}, err
	}
	s.Mounts = append(s.Mounts, identityMount(identity))
	inits, err := initFiles(p.container())
	if err != nil {
		return Container{}, err
	}
	dir := e.dir(t.GetId())
	log, err := logOf(t, dir)
	if err != nil {
		return Container{}, err
	}
	return Container{
		ID: t.GetId(), Spec: s, Share: shared(p.container()), Devices: p.moved, Layers: h.image.Layers, Upper: filepath.Join(dir, upperDir), Work: filepath.Join(dir, workDir),
		Files: append(inits, []File{
			{Path: "/etc/hosts", Data: hosts, Mode: 0o644},
			{Path: "/etc/hostname", Data: []byte(p.hostname() + "\n"), Mode: 0o644},
			{Path: "/etc/resolv.conf", Data: dns, Mode: 0o644},
		}...),
		Log: log,
	}, nil
}

// logOf is where the output of a task is kept, in its directory: nowhere for a service that says so.
func logOf(t *api.Task, dir string) (Log, error) {
	d, err := logdriver.Parse(t.GetSpec().GetLogDriver())
	if err != nil {
		return Log{}, fault.New(fault.Invalid, "log driver: %w", err)
	}
	if d.Name == logdriver.None {
		return Log{}, nil
	}
	return Log{Path: filepath.Join(dir, logFileName), MaxSize: d.MaxSize, MaxFiles: d.MaxFiles}, nil
}

// copySpec copies what compile changes, and shares the rest: making the default seccomp profile takes longer than everything else
// here.
func copySpec(in *specs.Spec) *specs.Spec {
	out, process, root, linux, resources := *in, *in.Process, *in.Root, *in.Linux, *in.Linux.Resources
	linux.Resources = &resources
	out.Process, out.Root, out.Linux = &process, &root, &linux
	out.Mounts = slices.Clone(in.Mounts)
	process.Rlimits, linux.Sysctl = slices.Clone(process.Rlimits), maps.Clone(linux.Sysctl)
	return &out
}

// lookupUser resolves a user, and groups beside its own, with the image's own files (E4).
func lookupUser(image Image, name string, groups []string) (account, error) {
	var a accounts
	var err error
	if a.passwd, err = readImageFile(image.Layers, "/etc/passwd", passwd.MaxFile); err != nil {
		return account{}, err
	}
	if a.group, err = readImageFile(image.Layers, "/etc/group", passwd.MaxFile); err != nil {
		return account{}, err
	}
	return a.lookup(name, groups...)
}

// secrets returns the task's secrets and, in the same order, the files that they are. Those that are not here yet may come: the error is temporary.
func (e *Executor) secrets(t *api.Task) (wanted []secretFile, out []File, err error) {
	if wanted, err = secretFiles(t); err != nil {
		return nil, nil, err
	}
	var missing, reasons []string
	for i, w := range wanted {
		data, version, ok := e.cfg.Secrets.Reveal(w.id)
		if !ok {
			missing = append(missing, cmp.Or(w.name, w.id))
			if why := e.cfg.Secrets.Absence(w.id); why != "" && !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
			continue
		}
		wanted[i].version = version
		out = append(out, File{Path: w.path, Data: data, UID: w.uid, GID: w.gid, Mode: w.mode, Secret: true})
	}
	if len(missing) > 0 {
		clearSecrets(out)
		text := "waiting for a manager to send secret " + strings.Join(missing, ", ")
		return nil, nil, fault.New(fault.Unavailable, "%s", strings.Join(append([]string{text}, reasons...), ": "))
	}
	if err := e.expandFiles(t, wanted, out); err != nil {
		clearSecrets(out)
		return nil, nil, err
	}
	return wanted, out, nil
}

func clearSecrets(files []File) {
	for _, f := range files {
		clear(f.Data)
	}
}
