/** Units and presets that settings ask for, as files. Source: mkosi(1), `Autologin=` and `Ssh=`; systemd.unit(5). */

/** Text by path in the image. */
export type Files = Readonly<Record<string, string>>

/** Logs root in on the consoles. */
export const AUTOLOGIN: Files = {
  ...autologin('console-getty.service', '--noclear --keep-baud console 115200,38400,9600'),
  ...autologin('getty@tty1.service', '--noclear -'),
  ...autologin('serial-getty@hvc0.service', '--keep-baud 115200,57600,38400,9600 -'),
}

function autologin(service: string, options: string): Files {
  return {
    [`usr/lib/systemd/system/${service}.d/autologin.conf`]: `[Service]
ExecStart=
ExecStart=-agetty -o '-f -p -- \\\\u' --autologin root ${options} $TERM
StandardInput=tty
StandardOutput=tty
`,
  }
}

/** An SSH server that the host reaches over a virtual machine's socket. */
export const SSH: Files = {
  'usr/lib/systemd/system/ssh.socket': `[Unit]
Description=SSH Server VSock Socket
ConditionVirtualization=!container
Wants=sshd-keygen.target

[Socket]
ListenStream=vsock::22
Accept=yes

[Install]
WantedBy=sockets.target
`,
  // without PAM: sshd -i would tell it an unknown host, whose name it then looks up for seconds
  'usr/lib/systemd/system/ssh@.service': `[Unit]
Description=SSH Server
After=sshd-keygen.target

[Service]
ExecStart=sshd -i -o UsePAM=no
StandardInput=socket
RuntimeDirectoryPreserve=yes
RuntimeDirectory=sshd
SuccessExitStatus=255
`,
  'usr/lib/systemd/system-preset/80-mkosi-ssh.preset': 'enable ssh.socket\n',
}
