export const title=()=>'compare'; export async function open(root){ return {}; }
