package executor

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/lsm"
)

const (
	// defaultPath is the search path of a process whose image and service name none.
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// shortID is the length of the default host name, as Docker's.
	shortID = 12
	// defaultSecretMode is the mode of a secret's file when its reference names none.
	defaultSecretMode = 0o444
	// secretDir is where secrets with a relative name are.
	secretDir = "/run/secrets"
	// identityDir is where a task finds its certificate and the socket of the SPIFFE Workload API.
	identityDir = "/run/skep/identity"
	// workloadSocket tells SPIFFE's libraries where the socket is, by the variable that their standard names.
	workloadSocket = "SPIFFE_ENDPOINT_SOCKET=unix://" + identityDir + "/workload.sock"
)

// plan is what a container is compiled from.
type plan struct {
	task  *api.Task
	image ocispec.ImageConfig
	// nodeID and nodeName are this node's, for the environment.
	nodeID, nodeName string
	user             account
	idBase           uint32
	// volumes are the directories of the volumes, by their names.
	volumes map[string]string
	// mounted are the images that are mounted, by their names in the mounts.
	mounted map[string]Image
	// cdi are the directories of CDI files, that of the least weight first.
	cdi []string
	// moved are where on this node the devices are that have another path here, by the one in the container. Compiling fills it.
	moved map[string]string
	// private are directories of the node, by paths without links, that no grant gives.
	private []string
	// appArmor is the profile that containers have by default, or "" where AppArmor confines nothing.
	appArmor string
	// selinux are the container's labels, the zero value where SELinux is off.
	selinux lsm.Labels
}

// container returns the task's container spec, never nil.
func (p plan) container() *api.ContainerSpec { return containerOf(p.task) }

func containerOf(t *api.Task) *api.ContainerSpec {
	if c := t.GetSpec().GetContainer(); c != nil {
		return c
	}
	return &api.ContainerSpec{}
}

// compile fills in a spec that has all the defaults of isolation. Nothing in the image can weaken them: from it come the program,
// its arguments, environment, directory and user only; and a health check, which is run as that user.
func (p plan) compile(s *specs.Spec) error {
	args, err := p.args()
	if err != nil {
		return err
	}
	s.Process.Args = args
	s.Process.Env = p.env()
	s.Process.Cwd = path.Join("/", cmp.Or(p.container().GetDir(), p.image.WorkingDir))
	s.Process.User = p.user.user()
	s.Hostname = p.hostname()
	s.Root.Readonly = p.container().GetReadOnly()
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: p.idBase, Size: rangeSize}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, slices.Clone(ids)
	before := s.Process.Capabilities.Bounding
	if err := p.capabilities(s); err != nil {
		return err
	}
	if err := p.privileges(s, before); err != nil {
		return err
	}
	if err := p.mounts(s); err != nil {
		return err
	}
	if err := p.granted(s); err != nil {
		return err
	}
	if err := p.process(s); err != nil {
		return err
	}
	p.namespaces(s)
	return p.limits(s)
}

// args returns the program and its arguments, as Docker combines them.
func (p plan) args() ([]string, error) {
	entry, args := p.container().GetCommand(), p.container().GetArgs()
	if len(entry) == 0 {
		entry = p.image.Entrypoint
		if len(args) == 0 {
			args = p.image.Cmd
		}
	}
	all := slices.Concat(entry, args)
	if len(all) == 0 || all[0] == "" {
		return nil, fault.New(fault.Invalid, "the image names no program to run: give the service a command")
	}
	return all, nil
}

// env returns the environment: the image's, then the service's, then what Skep says of the task. A variable of the service
// without a value takes it away; HOME is the user's home directory then, as it is when nobody says another.
func (p plan) env() []string {
	out := setEnv(nil, defaultPath)
	for _, e := range p.image.Env {
		out = setEnv(out, e)
	}
	out = setEnv(out, "HOSTNAME="+p.hostname())
	out = setEnv(out, workloadSocket) // a service may name another one
	if p.container().GetTty() {
		out = setEnv(out, "TERM=xterm") // as Docker has it
	}
	for _, e := range p.container().GetEnv() {
		out = setEnv(out, e)
	}
	t := p.task
	for _, e := range []string{
		"SKEP_NODE_ID=" + p.nodeID, "SKEP_NODE_HOSTNAME=" + p.nodeName,
		"SKEP_SERVICE_ID=" + t.GetServiceId(), "SKEP_SERVICE_NAME=" + t.GetServiceName(),
		"SKEP_TASK_ID=" + t.GetId(), "SKEP_TASK_SLOT=" + strconv.FormatUint(t.GetSlot(), 10),
		"SKEP_TASK_NAME=" + taskName(t),
	} {
		out = setEnv(out, e)
	}
	for _, e := range genericEnv(t.GetGenericResources()) {
		out = setEnv(out, e)
	}
	if p.user.home != "" && !slices.ContainsFunc(out, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		out = append(out, "HOME="+p.user.home)
	}
	return out
}

// setEnv sets or, without a "=", takes away a variable.
func setEnv(env []string, variable string) []string {
	name, _, set := strings.Cut(variable, "=")
	same := func(e string) bool { return strings.HasPrefix(e, name+"=") }
	switch at := slices.IndexFunc(env, same); {
	case name == "":
		return env
	case !set:
		return slices.DeleteFunc(env, same)
	case at >= 0:
		env[at] = variable
		return env
	}
	return append(env, variable)
}

func (p plan) hostname() string {
	if h := p.container().GetHostname(); h != "" {
		return h
	}
	if onNodesNetwork(p.container()) { // which knows no other name, as Docker has it
		return p.nodeName
	}
	return p.task.GetId()[:min(shortID, len(p.task.GetId()))]
}

// capabilities adds to and drops from the default ones. A process that is not root has none in effect, as Docker's.
func (p plan) capabilities(s *specs.Spec) error {
	caps, err := changeCapabilities(s.Process.Capabilities.Bounding, addedCapabilities(p.task), p.container().GetCapabilityDrop())
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if p.user.uid == 0 {
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = slices.Clone(caps), slices.Clone(caps)
	}
	return nil
}

// addedCapabilities returns those that a task has beyond the default ones: by its spec, and by its grants.
func addedCapabilities(t *api.Task) []string {
	added := slices.Clone(containerOf(t).GetCapabilityAdd())
	for _, grant := range t.GetGrants() {
		added = append(added, grant.GetSpec().GetCapabilities()...)
	}
	return added
}

// secretFile is where a secret goes in a container.
type secretFile struct {
	id, name string
	// named is the target as the service has it.
	named    string
	path     string
	template bool
	config   bool
	uid, gid uint32
	mode     uint32
	// onChange says what becomes of the file when the value changes, and signal what is sent then.
	onChange api.OnChange
	signal   string
	// version is that of the value, once it is looked up.
	version uint64
}

// secretFiles returns where the task's secrets go.
func secretFiles(t *api.Task) ([]secretFile, error) {
	var out []secretFile
	seen := map[string]bool{}
	for _, ref := range containerOf(t).GetSecrets() {
		target := ref.GetTarget()
		f := secretFile{
			id: ref.GetSecretId(), name: ref.GetSecretName(), uid: target.GetUid(), gid: target.GetGid(), mode: target.GetMode() & 0o777,
			path: cmp.Or(target.GetName(), ref.GetSecretName()), named: target.GetName(), template: ref.GetTemplate(), config: ref.GetConfig(),
			onChange: ref.GetOnChange(), signal: ref.GetSignal(),
		}
		if f.mode == 0 {
			f.mode = defaultSecretMode
		}
		if !path.IsAbs(f.path) {
			f.path = path.Join(secretDir, f.path)
			if !within(f.path, secretDir) || f.path == secretDir {
				return nil, fault.New(fault.Invalid, "secret %s: target %q is not below %s", f.name, target.GetName(), secretDir)
			}
		}
		f.path = path.Clean(f.path)
		switch {
		case within(f.path, secretDir) && path.Dir(f.path) != secretDir:
			// All of secretDir is one file system in memory, which has no directories.
			return nil, fault.New(fault.Invalid, "secret %s: target %s has a directory below %s: give a plain name, or an absolute path elsewhere", f.name, f.path, secretDir)
		case f.path == "/" || isolates(f.path):
			return nil, fault.New(fault.Invalid, "secret %s: target %s is not a place for a file", f.name, f.path)
		case within(f.path, identityDir):
			return nil, fault.New(fault.Invalid, "secret %s: target %s is within the task's identity", f.name, f.path)
		case seen[f.path]:
			return nil, fault.New(fault.Invalid, "secret %s: another secret has the target %s already", f.name, f.path)
		case f.uid >= rangeSize || f.gid >= rangeSize:
			return nil, fault.New(fault.Invalid, "secret %s: owner %d:%d is not within the %d ids of a container", f.name, f.uid, f.gid, rangeSize)
		}
		seen[f.path] = true
		out = append(out, f)
	}
	return out, nil
}

// isolates says whether p is of what isolates the container.
func isolates(p string) bool { return within(p, "/proc") || within(p, "/sys") || within(p, "/dev") }

// within says whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
