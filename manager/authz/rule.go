package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/skep-io/skep/api"
)

// ErrUndeclared is returned when a server registers a method that doesn't say who may call it.
var ErrUndeclared = errors.New("method has no (skep.v1.access) option that says who may call it")

// rules are the declared rules by full method, "/skep.v1.CA/IssueCertificate".
type rules map[string]*api.Access

// declaredRules reads the rules of all methods of package api.
func declaredRules() rules {
	all := rules{}
	protoregistry.GlobalFiles.RangeFilesByPackage(api.File_skep_v1_access_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				if rule := RuleOf(methods.Get(j)); rule != nil {
					all[fullMethod(methods.Get(j))] = rule
				}
			}
		}
		return true
	})
	return all
}

// Recorded returns the rules, by full method, of those that the audit log has all calls of. One that does not say is among them.
func Recorded() map[string]*api.Access {
	recorded := declaredRules()
	maps.DeleteFunc(recorded, func(_ string, rule *api.Access) bool { return rule.GetAudit() == api.AuditRule_AUDIT_RULE_REFUSALS })
	return recorded
}

// RuleOf returns what is declared beside a method, or nil if nothing is, or nothing that lets anybody call it.
func RuleOf(m protoreflect.MethodDescriptor) *api.Access {
	rule, _ := proto.GetExtension(m.Options(), api.E_Access).(*api.Access)
	if len(rule.GetCallers()) == 0 || slices.Contains(rule.GetCallers(), api.Caller_CALLER_UNSPECIFIED) {
		return nil
	}
	return rule
}

func fullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// Check returns ErrUndeclared, once for each, if s has registered methods without a rule (A1). It is called before s serves.
func Check(s *grpc.Server) error {
	all := declaredRules()
	var errs []error
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			if name := "/" + service + "/" + m.Name; all[name] == nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, ErrUndeclared))
			}
		}
	}
	return errors.Join(errs...)
}
