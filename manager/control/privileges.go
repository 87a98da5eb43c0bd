package control

import (
	"regexp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
)

// maxLabelPart bounds a part of an SELinux label, and the name of an AppArmor profile: both are far shorter in practice.
const maxLabelPart = 255

var (
	// appArmorPattern keeps a name in one line of what is written to the kernel. A profile can be named like a path.
	appArmorPattern = regexp.MustCompile(`^[a-zA-Z0-9_/][a-zA-Z0-9_/.+-]*(//[a-zA-Z0-9_/.+-]+)?$`)
	// selinuxPattern are identifiers of a policy; levelPattern is a range such as s0:c1,c2 or s0-s0:c0.c1023.
	selinuxPattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.]*$`)
	levelPattern   = regexp.MustCompile(`^s[0-9]+(:c[0-9,.c]+)?(-s[0-9]+(:c[0-9,.c]+)?)?$`)
)

// privileges checks what is to isolate a process.
func (p *problems) privileges(at string, pr *api.Privileges) {
	p.seccomp(at+".seccomp", pr.GetSeccomp())
	p.value(at+".userns", pr.GetUserns())
	p.value(at+".pid", pr.GetPid())
	p.value(at+".ipc", pr.GetIpc())
	p.value(at+".network", pr.GetNetwork())
	a := pr.GetApparmor()
	p.value(at+".apparmor.mode", a.GetMode())
	switch custom := a.GetMode() == api.AppArmorMode_APP_ARMOR_MODE_PROFILE; {
	case custom && (len(a.GetProfile()) > maxLabelPart || !appArmorPattern.MatchString(a.GetProfile())):
		p.add(at+".apparmor.profile", "invalid name of an AppArmor profile: %q", clip(a.GetProfile()))
	case !custom && a.GetProfile() != "":
		p.add(at+".apparmor.profile", "is for the mode of a profile only")
	}
	s := pr.GetSelinuxContext()
	for _, part := range []struct {
		name, value string
		pattern     *regexp.Regexp
	}{
		{"user", s.GetUser(), selinuxPattern},
		{"role", s.GetRole(), selinuxPattern},
		{"type", s.GetType(), selinuxPattern},
		{"level", s.GetLevel(), levelPattern},
	} {
		switch {
		case part.value == "":
		case s.GetDisable():
			p.add(at+".selinux_context."+part.name, "can't be given where labels are disabled")
		case len(part.value) > maxLabelPart || !part.pattern.MatchString(part.value):
			p.add(at+".selinux_context."+part.name, "invalid %s of an SELinux label: %q", part.name, clip(part.value))
		}
	}
}

func (p *problems) seccomp(at string, s *api.SeccompOptions) {
	p.value(at+".mode", s.GetMode())
	if s.GetMode() != api.SeccompMode_SECCOMP_MODE_CUSTOM {
		if len(s.GetProfile()) > 0 {
			p.add(at+".profile", "is for the mode of a custom profile only")
		}
		return
	}
	if err := security.CheckProfile(s.GetProfile()); err != nil {
		p.add(at+".profile", "%v", err)
	}
}
