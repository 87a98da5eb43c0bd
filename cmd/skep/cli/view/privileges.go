package view

import "github.com/skep-io/skep/api"

// Privileges are what isolates a process otherwise than by default, in the words of Docker's API.
type Privileges struct {
	Seccomp        *SeccompOpts    `json:",omitempty"`
	AppArmor       *AppArmorOpts   `json:",omitempty"`
	SELinuxContext *SELinuxContext `json:",omitempty"`
	// NoNewPrivileges is true by default, unlike Docker's.
	NoNewPrivileges bool
	// UsernsMode is host, or empty for ids of the container's own.
	UsernsMode string `json:",omitempty"`
	// PidMode and IpcMode are host, or empty for namespaces of the container's own.
	PidMode string `json:",omitempty"`
	IpcMode string `json:",omitempty"`
	// NetworkMode is host, or empty for a network namespace of the container's own.
	NetworkMode string `json:",omitempty"`
}

// SeccompOpts is the choice of a filter: default, unconfined, or custom with a profile in Docker's JSON.
type SeccompOpts struct {
	Mode    string
	Profile []byte `json:",omitempty"`
}

// AppArmorOpts is the choice of a profile: default, disabled, or custom with a name. Docker has no custom one.
type AppArmorOpts struct {
	Mode    string
	Profile string `json:",omitempty"`
}

// SELinuxContext are the parts of a label.
type SELinuxContext struct {
	Disable bool   `json:",omitempty"`
	User    string `json:",omitempty"`
	Role    string `json:",omitempty"`
	Type    string `json:",omitempty"`
	Level   string `json:",omitempty"`
}

func newPrivileges(p *api.Privileges) *Privileges {
	if p == nil {
		return nil
	}
	out := &Privileges{
		NoNewPrivileges: !p.GetNewPrivileges(), PidMode: namespaceMode(p.GetPid()), IpcMode: namespaceMode(p.GetIpc()),
		NetworkMode: namespaceMode(p.GetNetwork()),
	}
	if p.GetUserns() == api.UsernsMode_USERNS_MODE_HOST {
		out.UsernsMode = "host"
	}
	if s := p.GetSeccomp(); s != nil {
		out.Seccomp = &SeccompOpts{Mode: seccompMode(s.GetMode()), Profile: s.GetProfile()}
	}
	if a := p.GetApparmor(); a != nil {
		out.AppArmor = &AppArmorOpts{Mode: appArmorMode(a.GetMode()), Profile: a.GetProfile()}
	}
	if s := p.GetSelinuxContext(); s != nil {
		out.SELinuxContext = &SELinuxContext{
			Disable: s.GetDisable(), User: s.GetUser(), Role: s.GetRole(), Type: s.GetType(), Level: s.GetLevel(),
		}
	}
	return out
}

// namespaceMode is host, or empty for the container's own.
func namespaceMode(m api.NamespaceMode) string {
	if m == api.NamespaceMode_NAMESPACE_MODE_HOST {
		return "host"
	}
	return ""
}

// seccompMode is Docker's word.
func seccompMode(m api.SeccompMode) string {
	switch m {
	case api.SeccompMode_SECCOMP_MODE_UNCONFINED:
		return "unconfined"
	case api.SeccompMode_SECCOMP_MODE_CUSTOM:
		return "custom"
	default:
		return "default"
	}
}

// appArmorMode is Docker's word, where it has one.
func appArmorMode(m api.AppArmorMode) string {
	switch m {
	case api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED:
		return "disabled"
	case api.AppArmorMode_APP_ARMOR_MODE_PROFILE:
		return "custom"
	default:
		return "default"
	}
}

// Options are the privileges as --security-opt, --userns, --pid, --ipc and --network take them.
func (p *Privileges) Options() []string {
	if p == nil {
		return nil
	}
	var out []string
	add := func(option, value string) {
		if value != "" {
			out = append(out, option+value)
		}
	}
	if p.Seccomp != nil && p.Seccomp.Mode != "default" {
		add("seccomp=", p.Seccomp.Mode)
	}
	if p.AppArmor != nil && p.AppArmor.Mode == "disabled" {
		add("apparmor=", "unconfined")
	}
	if p.AppArmor != nil {
		add("apparmor=", p.AppArmor.Profile)
	}
	if s := p.SELinuxContext; s != nil {
		if s.Disable {
			add("label=", "disable")
		}
		add("label=user:", s.User)
		add("label=role:", s.Role)
		add("label=type:", s.Type)
		add("label=level:", s.Level)
	}
	if !p.NoNewPrivileges {
		add("no-new-privileges=", "false")
	}
	add("userns=", p.UsernsMode)
	add("pid=", p.PidMode)
	add("ipc=", p.IpcMode)
	add("network=", p.NetworkMode)
	return out
}
