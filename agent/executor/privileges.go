package executor

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"slices"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/seccomp"
)

// maxProfile is the most bytes of a seccomp profile, as the managers have it.
const maxProfile = 256 << 10

// privileges isolates the process otherwise than by default, where the service says so. Capabilities must be compiled already: the
// seccomp profile allows more to a process that has more.
func (p plan) privileges(s *specs.Spec, before []string) error {
	pr := p.container().GetPrivileges()
	s.Process.NoNewPrivileges = !pr.GetNewPrivileges()
	if err := p.labels(s, pr); err != nil {
		return err
	}
	return p.seccomp(s, pr.GetSeccomp(), before)
}

// labels chooses what mandatory access control confines the process by. What a service asks for and the node hasn't is refused: it must
// not be off in silence.
func (p plan) labels(s *specs.Spec, pr *api.Privileges) error {
	switch a := pr.GetApparmor(); a.GetMode() {
	case api.AppArmorMode_APP_ARMOR_MODE_UNSPECIFIED:
		s.Process.ApparmorProfile = p.appArmor
	case api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED:
		s.Process.ApparmorProfile = ""
	case api.AppArmorMode_APP_ARMOR_MODE_PROFILE:
		if p.appArmor == "" {
			return fault.New(fault.Invalid, "AppArmor profile %s: AppArmor confines nothing on this node", a.GetProfile())
		}
		s.Process.ApparmorProfile = a.GetProfile()
	default:
		return fault.New(fault.Invalid, "AppArmor mode %d is none that this node knows: update it", a.GetMode())
	}
	s.Process.SelinuxLabel, s.Linux.MountLabel = p.selinux.Process, p.selinux.Mount
	return nil
}

// selinuxLabels makes the labels of a container, none where the node has no SELinux. What a service asks for and the node hasn't is refused.
func selinuxLabels(c *api.SELinuxContext) (lsm.Labels, error) {
	var options []string
	for _, part := range []struct{ name, value string }{
		{"user", c.GetUser()}, {"role", c.GetRole()}, {"type", c.GetType()}, {"level", c.GetLevel()},
	} {
		if part.value != "" {
			options = append(options, part.name+":"+part.value)
		}
	}
	if c.GetDisable() {
		options = []string{"disable"}
	}
	if !lsm.SELinux() {
		if len(options) > 0 && !c.GetDisable() {
			return lsm.Labels{}, fault.New(fault.Invalid, "label=%s: SELinux confines nothing on this node: it is off, or its policy has no labels for "+
				"containers (package container-selinux)", options[0])
		}
		return lsm.Labels{}, nil
	}
	labels, err := lsm.NewLabels(options)
	if err != nil {
		return lsm.Labels{}, fault.New(fault.Invalid, "%w", err)
	}
	return labels, nil
}

// seccomp chooses the filter. The default one is there already, for the capabilities of before.
func (p plan) seccomp(s *specs.Spec, options *api.SeccompOptions, before []string) (err error) {
	switch options.GetMode() {
	case api.SeccompMode_SECCOMP_MODE_UNCONFINED:
		s.Linux.Seccomp = nil
	case api.SeccompMode_SECCOMP_MODE_CUSTOM:
		s.Linux.Seccomp, err = loadProfile(options.GetProfile(), s)
	case api.SeccompMode_SECCOMP_MODE_UNSPECIFIED:
		if !slices.Equal(before, s.Process.Capabilities.Bounding) {
			s.Linux.Seccomp, err = moby.GetDefaultProfile(s)
		}
	default:
		err = fault.New(fault.Invalid, "seccomp mode %d is none that this node knows: update it", options.GetMode())
	}
	return err
}

// CompileProfile returns an error for a seccomp profile that can't be used on this machine, for a container with no capabilities.
func CompileProfile(profile []byte) error {
	loaded, err := loadProfile(profile, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		return err
	}
	_, err = seccomp.Compile(loaded, runtime.GOARCH)
	return err
}

// loadProfile reads a profile in Docker's JSON, for the capabilities in s and for this machine. The managers have checked it, and said
// where a mistake is.
func loadProfile(profile []byte, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if len(profile) > maxProfile {
		return nil, fault.New(fault.Invalid, "seccomp profile of %d bytes: at most %d are possible", len(profile), maxProfile)
	}
	decoder := json.NewDecoder(bytes.NewReader(profile))
	decoder.DisallowUnknownFields() // Docker's own reader would drop what they restrict
	if err := decoder.Decode(new(moby.Seccomp)); err != nil {
		return nil, fault.New(fault.Invalid, "seccomp profile: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fault.New(fault.Invalid, "seccomp profile: something follows its end")
	}
	loaded, err := moby.LoadProfile(string(profile), s)
	if err != nil {
		return nil, fault.New(fault.Invalid, "seccomp profile: %w", err)
	}
	if loaded == nil { // Docker takes {} for no filter at all
		return nil, fault.New(fault.Invalid, "seccomp profile: it has no default action")
	}
	return loaded, nil
}
