// Package ca is identity: the swarm's root certificate, the node certificates that it signs, and the TLS that they make possible.
//
// It is not a server and keeps nothing: what the CA must remember it asks of Registry, files are ca/keyfile's, tokens
// ca/token's, the RPCs manager/caserver's, and who may call what is manager/authz's.
//
// # Life of an identity
//
//	            token                    CSR + token              50-80 % of life, or a new role
//	(nothing) ---------> root pinned -----------------> member ------------------------------------> member, new key
//	            Join                     Join             |   Renewer, over the old certificate
//	                                                      +--> expired: the old key still helps for a while, see ExpiredProof;
//	                                                           then only a new join does
//
// # Certificates
//
// Root: ECDSA P-256, CN skep-ca, 20 years, path length 1 (so that one root can cross-sign the next). Or one that people brought,
// or one whose key an external CA has.
//
// Node: ECDSA P-256, CN = node ID, OU = swarm-manager or swarm-worker, O = cluster ID, DNS names the node ID and the OU, URI
// spiffe://CLUSTER/node/NODE; for client and server authentication; valid from one hour before its issue (clocks differ)
// until Life after it, 90 days by default.
//
// User: ECDSA P-256, CN = user name, OU = skep-admin, skep-operator or skep-viewer, O = cluster ID, URI spiffe://CLUSTER/user/NAME, no
// DNS name; for client authentication only.
//
// Workload (X.509-SVID): no subject, one alternative name, URI spiffe://CLUSTER/service/NAME/task/SLOT; for client and server
// authentication, for one hour. [WorkloadOf] takes nobody else, and neither [NameOf] nor [UserOf] takes a workload.
//
// # Rotation of the root, from A to B
//
//	             A signs B's key: "cross"            each node renews                    all are renewed, and trust B
//	trusts A ----------------------------> trusts A, B ----------------> certificate by B ------------------------------> trusts B
//	cert by A                              cert by A                     with cross behind it                             cert by B
//
// The cross-signed certificate comes behind each one by B, so that whoever trusts only A, as a node that was away or one that joins
// with a token from before, trusts it as well. So nobody has to wait for anybody: a second rotation and an abortion are the same
// picture with another B, or with A in its place. A Target says who is done; manager/rootrotation does it.
//
// # Invariants
//
//   - C1: of a CSR nothing but the public key reaches a certificate; names, times and usages come from the CA, and every
//     certificate is checked against its profile before it is handed out.
//   - C2: a role comes from the token (at join) or from the Registry (at renewal), never from the applicant.
//   - C3: a joiner sends no secret before the root that the manager shows has the digest in the token.
//   - C4: a Credentials value is consistent: its key signs for its certificate, which chains to its roots and names a node.
//   - C5: an Identity never changes its node or its cluster, only its role, key, certificate and roots.
//   - C6: a private node key is made on its node and leaves it in no message; the root key is in the sealed store only.
//   - C7: TLS 1.3 and X25519MLKEM768 on every connection, no session tickets; a connection ends with the certificate that opened it,
//     or with the trust in its root.
//   - C8: a user's certificate is no node's (NameOf refuses it), a node's is no user's (UserOf refuses it), and each is let in at doors of
//     its kind only.
//
// # Concurrency
//
// Root, Credentials and Name are immutable. Identity, Authority and Renewer may be used from any goroutine; Renewer.Run is
// run once.
//
// # Errors
//
// See the variables in errors.go: those of a refused CSR, those of a refused join, and those of material that doesn't fit
// together.
//
// # Sources
//
// RFC 5280 (certificates), RFC 2986 (CSR), RFC 8446 (TLS 1.3), draft-ietf-tls-ecdhe-mlkem (the hybrid key exchange), the SPIFFE
// X.509-SVID standard (the URI), and Docker Swarm for names, lifetimes and the renewal window.
package ca
