/* See privilege.h. Order matters: the socket while we may still chown, supplementary groups, the
 * group, and the user last. */
#include "app/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

int privilege_drop(const char *user, const char *group, const char *socket_path, struct error *err)
{
    if (!user && !group)
        return MR_OK;
    const struct passwd *who = user ? getpwnam(user) : NULL;
    const struct group *which = group ? getgrnam(group) : NULL;
    if (user && !who)
        return error_set(err, MR_E_SCHEMA, "there is no user \"%s\"", user);
    if (group && !which)
        return error_set(err, MR_E_SCHEMA, "there is no group \"%s\"", group);
    gid_t gid = which ? which->gr_gid : getegid();
    uid_t uid = geteuid();
    if (who) {
        uid = who->pw_uid;
        gid = which ? which->gr_gid : who->pw_gid;
    }
    if (socket_path && chown(socket_path, uid, gid) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot give %s to its user: %s", socket_path,
                         strerror(errno));
    if ((geteuid() == 0 && who && initgroups(user, gid) != 0) || setgid(gid) != 0 ||
        setuid(uid) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot become user %u, group %u: %s", uid, gid,
                         strerror(errno));
    return MR_OK;
}
